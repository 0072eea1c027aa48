"""An informer holds a local copy of all objects of a kind, as the controller works on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from cloudach_kube.errors import KubeError, NotFound, Refused, Unreachable, is_unseen
from cloudach_kube.kinds import Kind
from cloudach_kube.reflector import Reflector, Source

from ..key import Key

log = logging.getLogger(__name__)

Changed = Callable[[Key, dict[str, Any]], None]
"""Called with the object, also with the last known one of those that are gone."""
Group = Callable[[dict[str, Any]], Key | None]
"""Returns the group that an object belongs to."""


class Informer:
    """An informer is a mirror of one kind in one namespace, which the reflector keeps true.

    `name` selects the objects with this name. With `optional` there are none where we lack the right to see them.
    `groups` holds the objects by what `group` returns for them. With `metadata_only` the rest is not kept, because some
    kinds have large specs.

    Rights that a new version needs may come later than that version, and Models are not to wait for them.

    `synced` is set while `objects` is what there is, as far as we may know. It is cleared when the API server refuses a
    kind that we cannot do without. What comes back later must not be taken for complete before it is. `turned` is
    called whenever `synced` is set or cleared.
    """

    def __init__(
        self,
        source: Source,
        kind: Kind,
        namespace: str | None,
        changed: Changed,
        *,
        selector: str = "",
        name: str = "",
        optional: bool = False,
        group: Group | None = None,
        metadata_only: bool = False,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self._group = group
        self._kind = kind
        self.namespace = namespace
        self._changed = changed
        self._optional = optional
        self._metadata_only = metadata_only
        self._turned = turned
        self._reflector = Reflector(source, kind, namespace, self, selector=selector, name=name)
        self.objects: dict[Key, dict[str, Any]] = {}
        self.groups: dict[Key, dict[Key, dict[str, Any]]] = {}
        self.synced = asyncio.Event()
        self.missing = False  # the API server does not know the kind, or does not let us see it
        self.asked = False  # the API server has answered, or did not in time
        self.connected = False
        self.refused = ""  # the API server's words instead of the objects

    @property
    def kind(self) -> str:
        return self._kind.plural

    async def run(self) -> None:
        """Runs until it is cancelled. An API server that is away is asked again and again."""
        await self._reflector.run()

    # What the reflector tells. The namespace is always ours.

    def listed(self, namespace: str | None, objects: list[dict[str, Any]]) -> None:
        self.asked, self.connected = True, True
        self.missing, self.refused = False, ""
        self._replace(objects)
        self.synced.set()
        self._turned()

    def changed(self, namespace: str | None, obj: dict[str, Any]) -> None:
        key = self._drop(obj)
        self.objects[key] = kept = self._kept(obj)
        self._join(key, kept)
        self._changed(key, obj)

    def deleted(self, namespace: str | None, obj: dict[str, Any]) -> None:
        self._changed(self._drop(obj), obj)

    def in_touch(self, namespace: str | None) -> None:
        if not self.connected:  # the watch goes on where it broke off
            self.connected = True
            self._turned()

    def out_of_touch(self, namespace: str | None, problem: KubeError) -> None:
        self.asked, self.connected = True, False
        unseen = is_unseen(problem) and (self._optional or isinstance(problem, NotFound))
        refused = isinstance(problem, Refused) and not unseen
        if not isinstance(problem, Unreachable):  # without an answer it is as it was
            self.missing = unseen
        self.refused = str(problem) if refused else ""
        if unseen:
            self._replace([])
            self.synced.set()
        elif refused:
            self.synced.clear()
        if not isinstance(problem, NotFound):
            log.warning("watch lost", extra={"kind": self.kind, "error": str(problem)})
        self._turned()

    # Inside.

    def _replace(self, objects: list[dict[str, Any]]) -> None:
        found = {_key(one): self._kept(one) for one in objects}
        old, self.objects = self.objects, found
        self.groups = {}
        for key, one in found.items():
            self._join(key, one)
        for key, one in found.items():
            if key not in old or _version(old[key]) != _version(one):
                self._changed(key, one)
        for key, one in old.items():
            if key not in found:
                self._changed(key, one)

    def _drop(self, one: dict[str, Any]) -> Key:
        key = _key(one)
        before = self.objects.pop(key, None)
        if before is not None:
            self._leave(key, before)
        return key

    def _join(self, key: Key, one: dict[str, Any]) -> None:
        group = self._group(one) if self._group is not None else None
        if group is not None:
            self.groups.setdefault(group, {})[key] = one

    def _leave(self, key: Key, one: dict[str, Any]) -> None:
        group = self._group(one) if self._group is not None else None
        if group is not None and key in self.groups.get(group, {}):
            del self.groups[group][key]
            if not self.groups[group]:
                del self.groups[group]

    def _kept(self, one: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {**one["metadata"], "annotations": None}} if self._metadata_only else one


def _key(one: dict[str, Any]) -> Key:
    return one["metadata"].get("namespace", ""), one["metadata"]["name"]


def _version(one: dict[str, Any]) -> str:
    return str(one["metadata"].get("resourceVersion", ""))
