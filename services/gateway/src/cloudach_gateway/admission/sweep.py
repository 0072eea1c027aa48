"""Goes round all tenants, a few at a time. Bills the requests of dead gateways, and drops records that were read.

Every process does so at its own pace. It does not matter which one comes first, because Redis does each thing once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable

from ..store import layout
from ..store.store import Store, StoreDown, StoreError
from .lost_gateways import LostGateways
from .script_calls import Encoder
from .scripts import LIMITER, SCAN, TRIM

log = logging.getLogger("cloudach.gateway.admission")

# How many tenants and keys one run looks at. They take tens of ms of this process, spread over its loop's ticks.
_STEPS = 500
_SCANNED = 100
_TRIM_EVERY_S = 3600.0


class Sweep:
    """Runs about once in a lease's life, and goes on where the last run ended. Keeps usage records for `keep_s`."""

    def __init__(
        self, store: Store, encoder: Encoder, keep_s: float, on_lost: Callable[[int], None] = lambda _: None
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._keep_s = keep_s
        self._lost_gateways = LostGateways(store, encoder.rules.lease_ttl_s, on_lost)
        self._round: AsyncIterator[None] | None = None
        self._trimmed_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_sweeping(), name="sweep")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def run(self, steps: int = _STEPS) -> bool:
        """Takes so many steps. Returns True if that completed a round. Raises StoreDown or StoreError."""
        if self._round is None:
            trim = time.monotonic() - self._trimmed_at > _TRIM_EVERY_S
            if trim:
                self._trimmed_at = time.monotonic()
            self._round = self._one_round(trim)
        try:
            for _ in range(steps):
                await anext(self._round)
        except BaseException as end:
            self._round = None
            if isinstance(end, StopAsyncIteration):
                return True
            raise
        return False

    async def bury(self, tenant: str, key_id: str) -> int:
        """Bills the requests of one key that are lost, and returns how many. Raises StoreDown or StoreError."""
        buried = 0
        while most := self._lost_gateways.most_lost:
            keys, args = self._encoder.renew(tenant, key_id, layout.utc_day(time.time()), most_lost=most)
            found = self._lost_gateways.found(await self._store.run(LIMITER.renew, keys, args))
            buried += found
            if found < most:
                break
        return buried

    async def trim(self, tenant: str) -> int:
        """Drops usage records that are old enough and that every group has read. Returns how many."""
        keys, args = self._encoder.trim(tenant, self._keep_s)
        return int(await self._store.run(TRIM, keys, args))

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(self._encoder.rules.lease_ttl_s * random.uniform(0.75, 1.25))
            if not self._lost_gateways.most_lost:
                continue
            try:
                await self.run()
            except StoreDown:
                continue  # the store logs its own state
            except StoreError as error:
                log.error("Redis refuses the sweep for lost requests: %s", error)
            except Exception:
                log.exception("the sweep for lost requests ended early because of an unexpected error")

    async def _one_round(self, trim: bool) -> AsyncIterator[None]:
        """Takes a step for each tenant, and one for each of its keys that has leases."""
        async for tenant in self._members(layout.TENANTS):
            if trim:
                await self.trim(tenant)
            async for key_id in self._members(layout.open_keys(tenant)):
                await self.bury(tenant, key_id)
                yield
            yield

    async def _members(self, name: str) -> AsyncIterator[str]:
        """Yields the members of a set. Some may come twice."""
        cursor: bytes | str = "0"
        while True:
            cursor, found = await self._store.run(SCAN, (name,), (cursor, _SCANNED))
            for member in found:
                yield member.decode()
            if cursor == b"0":
                return
