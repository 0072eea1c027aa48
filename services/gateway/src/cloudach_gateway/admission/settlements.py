"""Sends settlements to Redis, and keeps those that could not be sent until it is back."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from ..store.store import Store, StoreDown, StoreError
from .grants import Settlement
from .script_calls import Encoder
from .scripts import LIMITER

log = logging.getLogger("cloudach.gateway.admission")

_AT_ONCE = 128

OnWritten = Callable[[], None]


class Settlements:
    """Sends settlements, and keeps up to `most` while Redis is away. Past that the oldest is dropped and logged.

    `put` never blocks and never raises. A settlement may be sent again, because Redis counts a request once.
    """

    def __init__(self, store: Store, encoder: Encoder, *, most: int = 20_000) -> None:
        self._store = store
        self._encoder = encoder
        self._most = most
        self._kept: deque[tuple[Settlement, OnWritten | None]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._flusher: asyncio.Task[None] | None = None
        self.dropped = 0
        store.on_change.append(self._redis_changed)

    @property
    def pending(self) -> int:
        """Counts the settlements that are not yet known to be in Redis."""
        return len(self._kept) + len(self._sending)

    def put(self, done: Settlement, on_written: OnWritten | None = None) -> None:
        if not self._store.up or self._kept:
            self._keep(done, on_written)
            self._redis_changed(self._store.up)
            return
        self._start_sending(done, on_written)

    async def sent(self) -> None:
        """Waits until what is on its way has arrived, or Redis was found away."""
        if self._sending:
            await asyncio.wait(set(self._sending))

    async def flush(self, timeout_s: float) -> bool:
        """Waits until everything is in Redis, at most `timeout_s`. Whether it is."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.pending and asyncio.get_running_loop().time() < deadline:
            self._redis_changed(self._store.up)
            await asyncio.sleep(0.01)
        return not self.pending

    async def close(self) -> None:
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        if self.pending:
            log.error("%d settlements could not be written to Redis and are lost", self.pending)

    def _start_sending(self, done: Settlement, on_written: OnWritten | None) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._send(done, on_written))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _send(self, done: Settlement, on_written: OnWritten | None) -> None:
        try:
            keys, args = self._encoder.settle(done)
            await self._store.run(LIMITER.settle, keys, args)
        except StoreDown:
            self._keep(done, on_written)
        except StoreError as error:
            self.dropped += 1
            log.error("Redis refuses a settlement, request %s: %s", done.request_id, error)
        else:
            if on_written is not None:
                on_written()

    def _keep(self, done: Settlement, on_written: OnWritten | None) -> None:
        if len(self._kept) >= self._most:
            self._kept.popleft()
            self.dropped += 1
            if self.dropped == 1 or self.dropped % 1000 == 0:
                log.error("too many settlements wait for Redis: %d dropped so far", self.dropped)
        self._kept.append((done, on_written))

    def _redis_changed(self, up: bool) -> None:
        if up and self._kept and (self._flusher is None or self._flusher.done()):
            self._flusher = asyncio.get_running_loop().create_task(self._send_kept(), name="settlements")

    async def _send_kept(self) -> None:
        count = len(self._kept)
        while self._kept and self._store.up:
            batch = [self._kept.popleft() for _ in range(min(_AT_ONCE, len(self._kept)))]
            await asyncio.wait([self._start_sending(*kept) for kept in batch])
        log.info("%d settlements written to Redis after it came back", count - len(self._kept))
