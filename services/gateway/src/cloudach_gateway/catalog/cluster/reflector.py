"""Keeps a mirror of one namespace's objects true: lists them, then watches from there on, for ever."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from .api import ApiError, Gone, Object

_log = logging.getLogger("cloudach.gateway")

_WATCH_S = 300.0  # then the server ends it, and we ask again from where it stood
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0


class Source(Protocol):
    async def list(self, namespace: str | None) -> tuple[list[Object], str]: ...

    def watch(
        self, namespace: str | None, version: str, *, seconds: float
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, Object]]]: ...


class Mirror(Protocol):
    """Who is told. `namespace` None: all."""

    def listed(self, namespace: str | None, objects: list[Object]) -> None:
        """These and no others are there."""

    def changed(self, namespace: str | None, obj: Object) -> None: ...

    def deleted(self, namespace: str | None, obj: Object) -> None: ...

    def in_touch(self, namespace: str | None) -> None:
        """The server has just said that nothing, or what, is new."""

    def out_of_touch(self, namespace: str | None, problem: ApiError) -> None: ...


class Reflector:
    """`await run()` in a task of its own."""

    def __init__(
        self,
        source: Source,
        namespace: str | None,
        mirror: Mirror,
        *,
        what: str,
        resync_s: float,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """what: the objects' name, for the log."""
        self._source = source
        self._what = what
        self._namespace = namespace
        self._mirror = mirror
        self._resync_s = resync_s
        self._chance = chance
        self._version: str | None = None  # None: list first
        self._list_again_at = 0.0
        self._failures = 0  # in a row

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                if self._version is None or began >= self._list_again_at:
                    await self._list()
                    self._list_again_at = clock() + self._resync_s * self._chance(0.8, 1.0)
                await self._watch(self._list_again_at - clock())
            except Gone as gone:
                _log.info(f"{self._what} are listed anew", extra={"namespace": self._namespace, "cause": str(gone)})
                self._version = None
            except ApiError as problem:
                if problem.status is not None:  # it may be another server by now, that knows none of our versions
                    self._version = None
                self._mirror.out_of_touch(self._namespace, problem)
                await asyncio.sleep(self._pause())
                continue
            except Exception as error:  # a bug must not leave the catalog as it is for ever
                _log.exception(f"{self._what} cannot be followed", extra={"namespace": self._namespace})
                self._version = None
                self._mirror.out_of_touch(self._namespace, ApiError(repr(error)))
                await asyncio.sleep(self._pause())
                continue
            if clock() - began < _FIRST_PAUSE_S:  # a server that ends every watch at once is not to be stormed
                await asyncio.sleep(self._pause())

    async def _list(self) -> None:
        objects, self._version = await self._source.list(self._namespace)
        self._mirror.listed(self._namespace, objects)

    async def _watch(self, seconds: float) -> None:
        assert self._version is not None
        seconds = max(1.0, min(seconds, _WATCH_S * self._chance(0.8, 1.0)))
        async with self._source.watch(self._namespace, self._version, seconds=seconds) as events:
            self._in_touch()
            async for kind, obj in events:
                self._in_touch()
                if kind in ("ADDED", "MODIFIED"):
                    self._mirror.changed(self._namespace, obj)
                elif kind == "DELETED":
                    self._mirror.deleted(self._namespace, obj)
                self._version = str((obj.get("metadata") or {}).get("resourceVersion") or self._version)

    def _in_touch(self) -> None:
        self._failures = 0
        self._mirror.in_touch(self._namespace)

    def _pause(self) -> float:
        """Longer with each failure, and never the same for two gateways."""
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return pause * self._chance(0.5, 1.0)
