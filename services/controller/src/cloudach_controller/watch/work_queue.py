"""A work queue holds keys to work on: each once at a time, however often it is added. Failures come back later and
later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_S = 0.2


class WorkQueue(Generic[K]):
    """This works as client-go's queue does. A key that is added while it is worked on is handed out again
    afterwards.
    """

    def __init__(self, *, retry_max_s: float) -> None:
        self._retry_max_s = retry_max_s
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()  # in _ready
        self._working: set[K] = set()
        self._again: set[K] = set()  # to be handed out once more when done
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        self._cancel_timer(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_idle(self, key: K) -> None:
        """Adds the key unless it is to be worked on anyhow, now or later."""
        if key not in self._working and key not in self._timers:
            self.add(key)

    def add_after(self, key: K, delay_s: float) -> None:
        """Adds the key after this delay. If it is asked twice, the earlier time counts."""
        loop = asyncio.get_running_loop()
        old = self._timers.get(key)
        if old is not None and old.when() <= loop.time() + delay_s:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(delay_s, self.add, key)

    async def take(self) -> K:
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """Releases the key after its work went well, and forgets its failures."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: K) -> float:
        """Says that the work on the key failed. It comes back after the returned time, in s."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(FIRST_RETRY_S * float(2 ** min(count, 20)), self._retry_max_s)
        self._release(key)
        self.add_after(key, delay)
        return delay

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def _release(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
