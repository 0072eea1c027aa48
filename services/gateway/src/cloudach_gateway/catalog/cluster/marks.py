"""What gateways write on Models: that one is wanted awake, and that one is in use.

Both are annotations; what becomes of them is the controller's to say. What another gateway has just written is seen
through the watch, and not written again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from cloudach_model_api import Model, rfc3339
from cloudach_model_api.names import ANNOTATION_LAST_REQUEST_AT, ANNOTATION_WAKE_REQUESTED_AT

from ..served import Resource, Why
from .api import ApiError
from .entries import absence

_log = logging.getLogger("cloudach.gateway")

Annotate = Callable[[Resource, str, str], Awaitable[None]]
"""Sets one annotation. Raises ApiError."""

Look = Callable[[Resource], Model | None]
"""A Model as it was last seen."""


class Woke(Protocol):
    def __call__(self, own: Resource, problem: ApiError | None) -> None: ...


class Alarm:
    """Wakes Models that requests wait for: one wish for all of them, again only after `again_s`."""

    def __init__(self, annotate: Annotate, look: Look, *, again_s: float, woke: Woke) -> None:
        self._annotate = annotate
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
                if model is not None and _asleep(model) and not _lately(model.wake_requested_at, self._again_s):
                    await self._wish(own)
                await asyncio.sleep(self._again_s)
                if not self._waiting[own]:
                    return
        finally:
            del self._tasks[own]
            if not self._waiting[own]:
                del self._waiting[own]

    async def _wish(self, own: Resource) -> None:
        problem: ApiError | None = None
        try:
            await self._annotate(own, ANNOTATION_WAKE_REQUESTED_AT, rfc3339(datetime.now(UTC)))
        except ApiError as error:
            problem = error
        self._woke(own, problem)


class InUse:
    """Keeps the marks of Models that requests are running at younger than about `every_s`, whoever writes them."""

    def __init__(self, annotate: Annotate, look: Look, *, every_s: float) -> None:
        self._annotate = annotate
        self._look = look
        self._every_s = every_s
        self._running: Counter[Resource] = Counter()
        self._written: dict[Resource, float] = {}  # by us, in the loop's time
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock = asyncio.get_running_loop().time
        self._timer = asyncio.create_task(self._tick(), name="models in use")

    @contextmanager
    def by_one(self, own: Resource) -> Iterator[None]:
        """While a request runs."""
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
        """For the streams that last: an answer of an hour keeps its Model awake."""
        while True:
            await asyncio.sleep(self._every_s / 10)
            for own in list(self._running):
                self._mark(own)
            long_ago = self._clock() - 2 * self._every_s
            for own in [own for own, at in self._written.items() if at < long_ago]:
                del self._written[own]

    def _mark(self, own: Resource) -> None:
        # Not all gateways at the same age: the first one's mark keeps the others from writing.
        old_s = self._every_s * random.uniform(0.8, 1.0)
        if self._clock() - self._written.get(own, -math.inf) < old_s:
            return
        model = self._look(own)
        if model is None or _lately(model.last_request_at, old_s):
            return
        self._written[own] = self._clock()
        task = asyncio.create_task(self._write(own), name=f"mark {own}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, own: Resource) -> None:
        try:
            await self._annotate(own, ANNOTATION_LAST_REQUEST_AT, rfc3339(datetime.now(UTC)))
        except ApiError as error:
            _log.warning("a model could not be marked as in use", extra={"resource": str(own), "cause": str(error)})


def _asleep(model: Model) -> bool:
    gone = absence(model)
    return gone is not None and gone.why is Why.ASLEEP


def _lately(moment: datetime | None, seconds: float) -> bool:
    """Whether it was less than so long ago; a clock that is ahead does not make it so for ever."""
    return moment is not None and abs((datetime.now(UTC) - moment).total_seconds()) < seconds
