"""What runs now, and how it ends when the process is told to stop: drain, then cut what is left."""

from __future__ import annotations

import asyncio
from types import TracebackType

from . import metrics
from .errors import Overloaded

_RETRY_AFTER_S = 1.0


class Running:
    """One request that has been let in. `cut`: the drain deadline ended it. `gone`: its client went away."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._task = asyncio.current_task()
        self.cut = False
        self.gone = False

    def end_now(self) -> None:
        self.cut = True
        self._cancel()

    def client_gone(self) -> None:
        self.gone = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Running:
        self._lifecycle.running.add(self)
        metrics.RUNNING.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lifecycle.running.discard(self)
        metrics.RUNNING.dec()
        self._lifecycle.one_ended.set()


class Lifecycle:
    """Not ready until `open()`; from `drain()` on nothing new is let in."""

    def __init__(self) -> None:
        self.ready = False
        self.draining = False
        self.running: set[Running] = set()
        self.one_ended = asyncio.Event()

    def open(self) -> None:
        """Without effect once it drains."""
        self.ready = not self.draining

    def let_in(self) -> Running:
        """Raises Overloaded while draining: another gateway, or this one's successor, takes the retry."""
        if self.draining:
            raise Overloaded("The server is restarting.", retry_after_s=_RETRY_AFTER_S)
        return Running(self)

    async def drain(self, deadline_s: float) -> int:
        """Waits until nothing runs, at most `deadline_s`, then cuts the rest. Returns how many were cut."""
        self.ready, self.draining = False, True
        metrics.DRAINING.set(1)
        try:
            async with asyncio.timeout(deadline_s):
                await self._all_ended()
        except TimeoutError:
            pass
        left = list(self.running)
        for running in left:
            running.end_now()
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._all_ended()
        except TimeoutError:
            pass
        return len(left)

    async def _all_ended(self) -> None:
        while self.running:
            self.one_ended.clear()
            await self.one_ended.wait()


_LAST_WORDS_S = 2.0  # for the error frames of the streams that were cut
