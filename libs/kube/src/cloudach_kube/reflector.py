"""The one list-and-watch: it keeps a mirror of some objects true for as long as it runs.

What it promises, and what the API server asks of whoever watches:

- **List, then watch.** The objects are listed once, in pages. Then they are watched from the list's resourceVersion on.
  Every event moves that version on, and so do bookmarks, which come about once a minute.
- **Versions outlive connections.** A watch that ends, as the server ends each after a few minutes, goes on from the
  last version. So it does where the server gave no answer. Where the server did answer with an error, everything is
  listed anew: it may be another server by now, which knows none of our versions.
- **410 lists anew, after a pause.** A server that forgets fast, or all of whose clients come back at once, must not be
  asked for everything again and again.
- **Lists stand in for watches that fail.** From the third watch in a row on that brought nothing, a list follows each.
  A proxy may let no watch through, and an event that cannot be read is sent to each new watch again. While the server
  is away, such a list fails like the watch. Once it is back, the watch goes on from the last version.
- **Pauses** are half a second, doubled up to 15 seconds, with jitter. They begin anew once a watch has stood for
  10 seconds, and not by a watch that is opened and fails.
- **Every wait ends.** Lists and the begin of a watch have a deadline, and so has a watch as a whole.
- **Synced** means `listed`: from then on the mirror has all objects there are. It stays so through an outage, as last
  known. A mirror that is told `out_of_touch` with a 403 or a 404 (`errors.is_unseen`) has been answered: there is
  nothing that we may see. What it makes of that is its own affair, and only the next `listed` makes it complete again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from .client import Event, Object
from .errors import Gone, KubeError, Unreachable
from .kinds import Kind

log = logging.getLogger(__name__)

_WATCH_S = 300.0  # then the server ends it, before proxies take it for dead
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_STANDS_S = 10.0
_LISTS_AFTER = 3  # watches in a row that brought nothing


class Source(Protocol):
    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[Object], str]: ...

    def watch(
        self, kind: Kind, namespace: str | None, since: str, *, seconds: float, selector: str = "", name: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]: ...


class Mirror(Protocol):
    """A mirror is told what there is. `namespace` None means all namespaces."""

    def listed(self, namespace: str | None, objects: list[Object]) -> None:
        """Hears of all objects that are there now. Others that the mirror holds are gone."""

    def changed(self, namespace: str | None, obj: Object) -> None: ...

    def deleted(self, namespace: str | None, obj: Object) -> None: ...

    def in_touch(self, namespace: str | None) -> None:
        """Hears that the server answers: a watch has begun, or an event has come."""

    def out_of_touch(self, namespace: str | None, problem: KubeError) -> None:
        """Hears that the server could not be asked, or refused. The reflector asks again by itself."""


class Reflector:
    """A reflector keeps `mirror` true of the objects of one kind in one namespace. `run` needs a task of its own.

    `selector` and `name` narrow down which objects. `relist_s` is how often they are listed anew beside the watch, and
    None means never.
    """

    def __init__(
        self,
        source: Source,
        kind: Kind,
        namespace: str | None,
        mirror: Mirror,
        *,
        selector: str = "",
        name: str = "",
        relist_s: float | None = None,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._source = source
        self._kind = kind
        self._namespace = namespace
        self._mirror = mirror
        self._which = {"selector": selector, "name": name}
        self._relist_s = math.inf if relist_s is None else relist_s
        self._chance = chance
        self._version: str | None = None  # None: everything is to be listed
        self._list_again_at = -math.inf
        self._failures = 0  # in a row
        self._fruitless = 0  # watches in a row that brought nothing

    async def run(self) -> None:
        """Runs until it is cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            problem, goes_on = None, False
            try:
                if self._version is None or clock() >= self._list_again_at:
                    await self._list()
                goes_on = await self._watch(self._list_again_at - clock())
            except Exception as error:
                problem = self._problem(error)
            if self._version is not None and self._fruitless >= _LISTS_AFTER:
                try:
                    await self._list()
                except Exception as error:
                    problem = self._problem(error)
            if problem is not None:  # told after the list, because the watch is lost all the same
                self._mirror.out_of_touch(self._namespace, problem)
            if not goes_on:
                await asyncio.sleep(self._pause())

    def _problem(self, error: Exception) -> KubeError:
        """Returns what the mirror is told of. Everything is listed anew unless the versions that we know still hold."""
        if isinstance(error, KubeError):
            if error.status:  # it may be another server by now, that knows none of our versions
                self._version = None
            return error
        # A bug must not leave the mirror as it is for ever.
        about = {"kind": self._kind.plural, "namespace": self._namespace}
        log.error("objects cannot be followed", extra=about, exc_info=error)
        self._version = None
        return Unreachable(0, repr(error))

    async def _list(self) -> None:
        objects, self._version = await self._source.list(self._kind, self._namespace, **self._which)
        self._list_again_at = asyncio.get_running_loop().time() + self._relist_s * self._chance(0.8, 1.0)
        self._mirror.listed(self._namespace, objects)

    async def _watch(self, seconds: float) -> bool:
        """Returns whether the next watch may follow at once. Otherwise the server is not to be stormed."""
        assert self._version is not None
        clock = asyncio.get_running_loop().time
        seconds = max(1.0, min(seconds, _WATCH_S * self._chance(0.8, 1.0)))
        watch = self._source.watch(self._kind, self._namespace, self._version, seconds=seconds, **self._which)
        stood_since = math.inf
        self._fruitless += 1
        try:
            async with watch as events:
                stood_since = clock()
                self._mirror.in_touch(self._namespace)
                async for event, obj in events:
                    self._fruitless = 0
                    self._take(event, obj)
        except Gone as gone:
            about = {"kind": self._kind.plural, "namespace": self._namespace, "cause": str(gone)}
            log.info("objects are listed anew", extra=about)
            self._version = None
            return False
        finally:
            if clock() - stood_since >= _STANDS_S:
                self._failures = 0
        if clock() - stood_since < _FIRST_PAUSE_S:
            return False
        self._fruitless = 0  # it was quiet, and ended as it should
        return True

    def _take(self, event: str, obj: Object) -> None:
        self._mirror.in_touch(self._namespace)
        if event in ("ADDED", "MODIFIED"):
            self._mirror.changed(self._namespace, obj)
        elif event == "DELETED":
            self._mirror.deleted(self._namespace, obj)
        self._version = str((obj.get("metadata") or {}).get("resourceVersion") or self._version)

    def _pause(self) -> float:
        """Returns the next pause in s. It is longer with each failure, and never the same for two of us."""
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return pause * self._chance(0.5, 1.0)
