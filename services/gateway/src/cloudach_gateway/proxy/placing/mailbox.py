"""The events of one request, in order, for the one task that waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Event = TypeVar("Event")


class Mailbox(Generic[Event]):
    """Any callback of the loop may `post`. There is one reader."""

    __slots__ = ("_events", "_loop", "_waiter")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def post(self, event: Event) -> None:
        self._events.append(event)
        self._wake()

    async def get(self, until: float) -> Event | None:
        """The next event; None if there was none until then, in the loop's time."""
        if not self._events:
            self._waiter = self._loop.create_future()
            timer = self._loop.call_at(until, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self._events.popleft() if self._events else None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
