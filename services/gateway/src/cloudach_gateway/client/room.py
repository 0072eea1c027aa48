"""Bounds the memory of request bodies that have not arrived completely. One tenant may take half of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import Overloaded

_RETRY_AFTER_S = 1.0


class Room:
    """size: bytes. wait_s: how long a body waits for room. Meanwhile it is not read, which holds its sender back."""

    def __init__(self, size: int, *, wait_s: float) -> None:
        self._size = size
        self._wait_s = wait_s
        self._taken = 0
        self._by_tenant: dict[str, int] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def of(self, tenant: str, size: int) -> AsyncIterator[None]:
        """Keeps room for a body of at most `size` bytes. Raises Overloaded if none becomes free in time."""
        if not self._fits(tenant, size):
            await self._wait_for(tenant, size)
        self._taken += size
        self._by_tenant[tenant] = self._by_tenant.get(tenant, 0) + size
        try:
            yield
        finally:
            self._taken -= size
            left = self._by_tenant.pop(tenant) - size
            if left:
                self._by_tenant[tenant] = left
            self._wake()

    def _fits(self, tenant: str, size: int) -> bool:
        return self._taken + size <= self._size and self._by_tenant.get(tenant, 0) + size <= self._size // 2

    async def _wait_for(self, tenant: str, size: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._wait_s):
                while not self._fits(tenant, size):
                    turn: asyncio.Future[None] = loop.create_future()
                    self._waiting.append(turn)
                    try:
                        await turn
                    finally:
                        if turn in self._waiting:
                            self._waiting.remove(turn)
        except TimeoutError:
            raise Overloaded(
                "Too many request bodies are on their way. Please try again.",
                retry_after_s=_RETRY_AFTER_S,
                cause=f"no room for a body of {size} bytes within {self._wait_s} s",
            ) from None

    def _wake(self) -> None:
        """Has every waiting body look again for room, because they wait for different sizes."""
        waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
