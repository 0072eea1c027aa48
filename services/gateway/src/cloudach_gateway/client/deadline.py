"""A connection's deadline, which is moved often and missed seldom."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `missed` once its time has come. Moving it takes no new timer: the present one looks again when it ends."""

    __slots__ = ("_due", "_loop", "_missed", "_rings_at", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, missed: Callable[[], None]) -> None:
        self._loop = loop
        self._missed = missed
        self._due = self._rings_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        if self._due < self._rings_at:
            self._ring_at(self._due)

    def lift(self) -> None:
        self._due = math.inf

    def close(self) -> None:
        """Ends the deadline for good, and forgets whom to call."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._due = math.inf
        self._missed = _nothing

    def _ring_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = when
        self._timer = self._loop.call_at(when, self._rings)

    def _rings(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self._due <= self._loop.time():
            self._due = math.inf
            self._missed()
        elif self._due < math.inf:
            self._ring_at(self._due)


def _nothing() -> None:
    pass
