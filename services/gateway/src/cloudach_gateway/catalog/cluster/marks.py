"""Gateways mark a Model as wanted awake when a request waits for it, and as in use while requests run at it.

The marks stand in the ModelUse, an object beside the Model, so that a gateway needs no right to change a Model. The
controller decides what follows. A mark that another gateway has just written is not written again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal, Protocol

from cloudach_kube.errors import KubeError
from cloudach_model_api import Model, UseStatus

from ..served import Resource, Why
from .entries import absence

_log = logging.getLogger("cloudach.gateway")

_YOUNG = 0.8  # of the time between two marks of use: younger ones are never written again
_RETRY_S = 2.0  # after a failure: while the platform is upgraded, the object may come a moment later

Look = Callable[[Resource], Model | None]
"""Returns the Model as the API server last showed it, or None if there is none."""


class Api(Protocol):
    async def use(self, namespace: str, name: str) -> UseStatus: ...

    async def write_use(self, namespace: str, name: str, use: UseStatus) -> None: ...


class Uses:
    """This reads and writes the ModelUses of an API server."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def mark(
        self, own: Resource, field: Literal["wake_requested_at", "last_request_at"], *, unless_within_s: float
    ) -> float | None:
        """Writes the mark `field`, unless it is younger than `unless_within_s`. Raises KubeError.

        Returns the age of the younger mark in seconds, or None if the mark has been written now.
        """
        marked_at: datetime | None = getattr(await self._api.use(own.namespace, own.name), field)
        if marked_at is not None:
            # abs: a mark from a gateway whose clock is ahead lies in the future, and must grow old too.
            age_s = abs((datetime.now(UTC) - marked_at).total_seconds())
            if age_s < unless_within_s:
                return age_s
        await self._api.write_use(own.namespace, own.name, UseStatus.now(field))
        return None


class Woke(Protocol):
    def __call__(self, own: Resource, problem: KubeError | None) -> None: ...


class Alarm:
    """Wakes sleeping Models that requests wait for.

    However many requests wait for a Model, its wake mark is written once, and again only after `again_s` seconds.
    """

    def __init__(self, uses: Uses, look: Look, *, again_s: float, woke: Woke) -> None:
        self._uses = uses
        self._look = look
        self._again_s = again_s
        self._woke = woke
        self._waiting: Counter[Resource] = Counter()
        self._tasks: dict[Resource, asyncio.Task[None]] = {}

    @contextmanager
    def set_for(self, own: Resource) -> Iterator[None]:
        self._waiting[own] += 1
        if own not in self._tasks:
            self._tasks[own] = asyncio.create_task(self._ring(own), name=f"wake {own}")
        try:
            yield
        finally:
            self._waiting[own] -= 1

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _ring(self, own: Resource) -> None:
        try:
            while True:
                model = self._look(own)
                pause = self._again_s
                if model is not None and _asleep(model) and not await self._wish(own):
                    pause = min(pause, _RETRY_S)
                await asyncio.sleep(pause)
                if not self._waiting[own]:
                    return
        finally:
            del self._tasks[own]
            if not self._waiting[own]:
                del self._waiting[own]

    async def _wish(self, own: Resource) -> bool:
        """Marks the Model as wanted awake. Returns False if the API server did not take the mark."""
        try:
            if await self._uses.mark(own, "wake_requested_at", unless_within_s=self._again_s) is None:
                self._woke(own, None)
        except KubeError as error:
            self._woke(own, error)
            return False
        return True


class InUse:
    """Keeps a Model's mark of use younger than about `every_s` seconds while requests run at it.

    A mark that another gateway has written counts as well.
    """

    def __init__(self, uses: Uses, *, every_s: float) -> None:
        self._uses = uses
        self._every_s = every_s
        self._running: Counter[Resource] = Counter()
        self._marked: dict[Resource, float] = {}  # when any gateway wrote the mark, in the loop's time
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock = asyncio.get_running_loop().time
        self._timer = asyncio.create_task(self._tick(), name="models in use")

    @contextmanager
    def by_one(self, own: Resource) -> Iterator[None]:
        """Counts a request while it runs."""
        self._running[own] += 1
        self._mark(own)
        try:
            yield
        finally:
            self._running[own] -= 1
            if not self._running[own]:
                del self._running[own]

    def stop(self) -> None:
        self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    async def _tick(self) -> None:
        """Marks the Models of streams that last, because an answer of an hour keeps its Model awake."""
        while True:
            await asyncio.sleep(self._every_s / 10)
            for own in list(self._running):
                self._mark(own)
            long_ago = self._clock() - 2 * self._every_s
            for own in [own for own, at in self._marked.items() if at < long_ago]:
                del self._marked[own]

    def _mark(self, own: Resource) -> None:
        # Not all gateways at the same age: the first one's mark keeps the others from writing.
        old_s = self._every_s * random.uniform(_YOUNG, 1.0)
        if self._clock() - self._marked.get(own, -math.inf) < old_s:
            return
        self._marked[own] = self._clock()
        task = asyncio.create_task(self._write(own, old_s), name=f"mark {own}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, own: Resource, old_s: float) -> None:
        try:
            age_s = await self._uses.mark(own, "last_request_at", unless_within_s=old_s)
            self._marked[own] = self._clock() - (age_s or 0.0)
        except KubeError as error:
            self._marked[own] = self._clock() - _YOUNG * self._every_s + min(_RETRY_S, self._every_s / 10)
            _log.warning("a model could not be marked as in use", extra={"resource": str(own), "cause": str(error)})


def _asleep(model: Model) -> bool:
    gone = absence(model)
    return gone is not None and gone.why is Why.ASLEEP
