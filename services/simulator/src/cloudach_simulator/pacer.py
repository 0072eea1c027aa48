"""The clock of paced streams. All streams of one rate tick at once from one shared timer, like an engine's steps."""

from __future__ import annotations

import asyncio
import random
from typing import Protocol

_PHASES = 16


class Paced(Protocol):
    """A paced stream makes one step at each tick."""

    def tick(self) -> None:
        """Makes one step."""


class Ticker:
    """A ticker is one timer for all streams of a rate."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, jitter: float) -> None:
        self._loop = loop
        self._interval = interval
        self._jitter = jitter
        self._random = random.Random(interval)
        self._members: dict[Paced, None] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0

    def join(self, member: Paced) -> None:
        """Ticks `member` from the next tick on."""
        self._members[member] = None
        if self._handle is None:
            self._due = self._loop.time()
            self._schedule()

    def leave(self, member: Paced) -> None:
        """Stops ticking `member`."""
        self._members.pop(member, None)
        if not self._members and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self) -> None:
        interval = self._interval
        if self._jitter:
            interval *= 1 + self._jitter * self._random.uniform(-1, 1)
        # A late tick delays the following ones, as a slow step does. No burst makes up for it.
        self._due = max(self._due + interval, self._loop.time())
        self._handle = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._handle = None
        for member in tuple(self._members):
            member.tick()
        if self._members:
            self._schedule()


class Pacer:
    """A pacer keeps the tickers of all rates in use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, jitter: float = 0.0, spread: bool = False) -> None:
        self._loop = loop
        self._jitter = jitter
        self._phases = _PHASES if spread else 1
        self._turn = 0
        self._tickers: dict[tuple[float, int], Ticker] = {}

    def ticker(self, interval: float) -> Ticker:
        """Returns the ticker for a new stream. Spread streams take turns among phases that begin at different times."""
        self._turn = (self._turn + 1) % self._phases
        key = (interval, self._turn)
        found = self._tickers.get(key)
        if found is None:
            if len(self._tickers) >= 256:
                self._tickers.clear()
            found = self._tickers[key] = Ticker(self._loop, interval, self._jitter)
        return found
