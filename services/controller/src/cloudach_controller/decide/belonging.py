"""These functions tell whether an object belongs to a Model, though it has the name of one of ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudach_model_api.names import GROUP, KIND, LABEL_MANAGED_BY, LABEL_MODEL, MANAGER


def belongs(there: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Tells if the object belongs to this Model. `model` is the Model's metadata.

    An object of an earlier Model of the same name counts, too. The Model was deleted and made anew, or both come from a
    backup, which gives every object another uid. An object without any owner counts as long as its labels are ours. A
    deletion with `--cascade=orphan` leaves such objects.
    """
    meta = there["metadata"]
    owners = meta.get("ownerReferences") or ()
    if any(one.get("uid") == model.get("uid") for one in owners):
        return True
    if owners:
        return any(_is_namesake(one, model) for one in owners)
    labels = meta.get("labels") or {}
    return labels.get(LABEL_MANAGED_BY) == MANAGER and labels.get(LABEL_MODEL) == model["name"]


def whose(there: Mapping[str, Any]) -> str:
    """Says for a message which owners the object has."""
    owners = there["metadata"].get("ownerReferences") or ()
    named = [f"{one.get('kind')} {one.get('name')}" for one in owners]
    return f"it belongs to {', '.join(named)[:300]}" if named else "it belongs to no Model"


def _is_namesake(owner: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    group = str(owner.get("apiVersion")).partition("/")[0]
    return (group, owner.get("kind"), owner.get("name")) == (GROUP, KIND, model["name"])
