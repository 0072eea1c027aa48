"""Gateways report a Model's use in an object of its own, so that their rights end there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from .model import Model, ObjectMeta
from .names import API_VERSION, KIND, LABEL_MANAGED_BY, LABEL_MODEL, MANAGER, USE_KIND
from .part import Observed
from .status import Moment


class UseStatus(Observed):
    wake_requested_at: Moment | None = None
    """The time when a request last came while the Model slept. The controller wakes it."""
    last_request_at: Moment | None = None
    """The time when a request last ran. Gateways write it once a minute at most."""

    @classmethod
    def now(cls, field: Literal["wake_requested_at", "last_request_at"]) -> UseStatus:
        return cls(**{field: datetime.now(UTC)})

    def to_patch(self) -> dict[str, Any]:
        """Returns a merge patch of the subresource `status`, with the moments that are set."""
        return {"status": self.model_dump(mode="json", by_alias=True, exclude_none=True)}


class ModelUse(Observed):
    """Gateways record here when a Model was last used. It has its Model's name, and the controller makes it for each
    Model that may sleep. All of it stands in the status, because rights on that subresource reach nothing else.
    """

    api_version: Literal["cloudach.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelUse"] = USE_KIND
    metadata: ObjectMeta
    status: UseStatus = UseStatus()

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> ModelUse:
        """Reads the API server's JSON. Moments that cannot be read count as none, so that they block nothing."""
        try:
            return cls.model_validate_json(json.dumps(obj))
        except ValidationError:
            return cls.model_validate_json(json.dumps({"metadata": obj["metadata"]}))


def use_object(model: Model) -> dict[str, Any]:
    """Returns the ModelUse of a Model as the controller makes it. It goes when the Model goes."""
    meta = model.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": USE_KIND,
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": {LABEL_MODEL: meta.name, LABEL_MANAGED_BY: MANAGER},
            "ownerReferences": [owner(model)],
        },
    }


def owner(model: Model) -> dict[str, Any]:
    """Returns the reference that lets an object go with its Model."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": model.metadata.name,
        "uid": model.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
