"""A local copy of all objects of a kind, kept fresh by list and watch."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from ..kube.client import Kind
from ..kube.errors import Gone, KubeError, NotFound, Refused

log = logging.getLogger(__name__)

Key = tuple[str, str]  # namespace, name
Changed = Callable[[Key, dict[str, Any]], None]
"""Called with the object, also with the last known one of those that are gone."""
Group = Callable[[dict[str, Any]], Key | None]
"""Which group an object belongs to."""

_RETRY_S = (0.5, 15.0)


class Source(Protocol):
    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[dict[str, Any]], str]: ...

    def watch(
        self, kind: Kind, namespace: str | None, since: str, *, selector: str = "", name: str = ""
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]: ...


class Informer:
    """`name`: only objects that are called so. `optional`: without the right to see them, there are none. `group`: by
    what `groups` holds them. `metadata_only`: the rest is not kept, for kinds with large specs.

    Rights that a new version needs may come later than that version, and Models are not to wait for them.

    `synced` is set while `objects` is what there is, as far as we may know. It is cleared when the API server refuses a
    kind that we cannot do without, because whatever comes back later must not be taken for complete before it is.
    `turned` is called whenever it is set or cleared.
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
        self._source = source
        self._kind = kind
        self.namespace = namespace
        self._changed = changed
        self._optional = optional
        self._metadata_only = metadata_only
        self._turned = turned
        self._which = {"selector": selector, "name": name}
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
        """Until cancelled; an API server that is away is asked again and again."""
        pause = _RETRY_S[0]
        while True:
            try:
                since = await self._list()
                pause = _RETRY_S[0]
                while True:
                    since = await self._watch(since)
            except Gone:
                continue
            except NotFound:
                self._lose(missing=True)
            except KubeError as error:
                unseen = self._optional and error.status == 403
                self._lose(missing=unseen, refused="" if unseen or not isinstance(error, Refused) else str(error))
                log.warning("watch lost", extra={"kind": self._kind.plural, "error": str(error), "retry_s": pause})
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, _RETRY_S[1])

    def _lose(self, *, missing: bool, refused: str = "") -> None:
        self.asked, self.connected = True, False
        self.missing = missing
        self.refused = refused
        if missing:
            self._take([])
            self.synced.set()
        elif refused:
            self.synced.clear()
        self._turned()

    async def _list(self) -> str:
        objects, since = await self._source.list(self._kind, self.namespace, **self._which)
        self.asked, self.connected = True, True
        self.missing, self.refused = False, ""
        self._take(objects)
        self.synced.set()
        self._turned()
        return since

    def _take(self, objects: list[dict[str, Any]]) -> None:
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

    async def _watch(self, since: str) -> str:
        async for event, one in self._source.watch(self._kind, self.namespace, since, **self._which):
            since = _version(one)
            if event == "BOOKMARK":
                continue
            key = _key(one)
            before = self.objects.pop(key, None)
            if before is not None:
                self._leave(key, before)
            if event != "DELETED":
                self.objects[key] = kept = self._kept(one)
                self._join(key, kept)
            self._changed(key, one)
        return since

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
