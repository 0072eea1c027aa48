"""Knows which requests run, and ends them when the process is told to stop: it drains, then cuts the rest."""

from __future__ import annotations

import asyncio
import contextlib
import math
from types import TracebackType
from typing import Protocol

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


class Clients(Protocol):
    """These are the clients that are connected to this process."""

    async def leave(self) -> None:
        """Tells everyone that the process ends. Returns once it takes no more connections and nobody is connected."""


class Lifecycle:
    """It is not ready until `open()`. In a drain it lets requests in until shortly before the deadline, because they
    come on connections whose clients do not know yet."""

    def __init__(self) -> None:
        self.ready = False
        self.draining = False
        self.running: set[Running] = set()
        self.one_ended = asyncio.Event()
        self._full_at = math.inf

    def open(self) -> None:
        """Without effect once it drains."""
        self.ready = not self.draining

    def let_in(self) -> Running:
        """Raises Overloaded near a drain's deadline: another gateway, or this one's successor, takes the retry."""
        if self.draining and asyncio.get_running_loop().time() >= self._full_at:
            raise Overloaded("The server is restarting.", retry_after_s=_RETRY_AFTER_S)
        return Running(self)

    async def drain(self, clients: Clients, deadline_s: float, *, refuse_s: float) -> int:
        """Waits until nothing runs and no client is left, at most `deadline_s`, then cuts what runs.

        In the last `refuse_s` of that time nothing is let in. Returns how many were cut.
        """
        self.ready, self.draining = False, True
        self._full_at = asyncio.get_running_loop().time() + deadline_s - refuse_s
        metrics.DRAINING.set(1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await clients.leave()
                await self._all_ended()
        self._full_at = -math.inf
        left = list(self.running)
        for running in left:
            running.end_now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._all_ended()
        return len(left)

    async def _all_ended(self) -> None:
        while self.running:
            self.one_ended.clear()
            await self.one_ended.wait()


_LAST_WORDS_S = 2.0  # for the error frames of the streams that were cut
