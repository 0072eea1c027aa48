"""A deadline on an await that is put off often and missed seldom.

`asyncio.timeout` makes and cancels a timer for each await, about 5 µs of every relayed chunk. Here one timer stays:
when it fires and the deadline has moved meanwhile, it is set again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


class Alarm:
    """`alarm.due = …` as often as you like, never to an earlier time than is set; `await alarm.wait(…)`; `off()`."""

    __slots__ = ("_loop", "_rang", "_timer", "_waiting", "due")

    def __init__(self, due: float) -> None:
        """`due`: in the loop's time, seconds."""
        self._loop = asyncio.get_running_loop()
        self.due = due
        self._waiting: asyncio.Task[object] | None = None
        self._rang = False
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, awaitable: Awaitable[Result]) -> Result:
        """Raises TimeoutError once `due` has passed. The awaitable is cancelled then, and must bear that."""
        if self._timer is None:
            self._timer = self._loop.call_at(self.due, self._ring)
        self._waiting = asyncio.current_task()
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._rang and self._waiting is not None and self._waiting.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._waiting, self._rang = None, False

    def off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self.due > self._loop.time():
            self._timer = self._loop.call_at(self.due, self._ring)
        elif self._waiting is not None:
            self._rang = True
            self._waiting.cancel()
