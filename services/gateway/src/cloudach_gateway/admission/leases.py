"""Keeps the leases of this process' running requests alive in Redis, and notes there how far each of them is.

The leases of a killed process end by themselves, and what was noted of its requests is billed (sweep.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..store import layout
from ..store.store import Store, StoreDown, StoreError
from .grants import IN_DOUBT, Grant
from .lost_gateways import LostGateways
from .script_calls import Encoder
from .scripts import LIMITER

log = logging.getLogger("cloudach.gateway.admission")

# Lua's argument stack is limited, and one long script would hold up everybody's admissions.
_AT_ONCE = 100


class Leases:
    """The requests that this process runs, by API key. Renewing them also finds and bills those of dead gateways.

    `on_lost` is called with how many those were.
    """

    def __init__(self, store: Store, encoder: Encoder, on_lost: Callable[[int], None] = lambda _: None) -> None:
        self._store = store
        self._encoder = encoder
        self._lost_gateways = LostGateways(store, encoder.rules.lease_ttl_s, on_lost)
        self._running: dict[tuple[str, str], dict[int, Grant]] = {}
        self._task: asyncio.Task[None] | None = None
        self._now = asyncio.Event()
        store.on_change.append(self._redis_changed)

    @property
    def running(self) -> int:
        return sum(map(len, self._running.values()))

    def running_of(self, tenant: str, key_id: str) -> int:
        return len(self._running.get((tenant, key_id), ()))

    def guided_of(self, tenant: str) -> int:
        """Counts the guided requests of all the tenant's keys."""
        of_tenant = (grants for (owner, _), grants in self._running.items() if owner == tenant)
        return sum(grant.guided for grants in of_tenant for grant in grants.values())

    def add(self, grant: Grant) -> None:
        caller = grant.caller
        self._running.setdefault((caller.tenant, caller.key_id), {})[id(grant)] = grant

    def remove(self, grant: Grant) -> None:
        key = (grant.caller.tenant, grant.caller.key_id)
        mine = self._running.get(key)
        if mine is not None:
            mine.pop(id(grant), None)
            if not mine:
                del self._running[key]

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_renewing(), name="lease-renewal")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _redis_changed(self, up: bool) -> None:
        if up:  # after an outage, before another gateway takes our requests for lost
            self._now.set()

    async def _keep_renewing(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._encoder.rules.lease_ttl_s / 3):
                    await self._now.wait()
            except TimeoutError:
                pass
            self._now.clear()
            try:
                await self.renew()
            except StoreDown:
                continue  # the store logs its own state
            except StoreError as error:
                log.error("Redis refuses to renew leases: %s", error)
            except Exception:
                log.exception("leases could not be renewed because of an unexpected error")

    async def renew(self) -> None:
        """Renews all leases at once, so that they share a write to Redis. Raises StoreDown or StoreError."""
        calls = []
        day = layout.utc_day(time.time())
        for (tenant, key_id), grants in self._running.items():
            leased = [grant for grant in grants.values() if grant.lease not in ("", IN_DOUBT)]
            for start in range(0, len(leased), _AT_ONCE):
                keys, args = self._encoder.renew(
                    tenant, key_id, day, leased[start : start + _AT_ONCE], most_lost=self._lost_gateways.most_lost
                )
                calls.append(self._store.run(LIMITER.renew, keys, args))
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            self._lost_gateways.found(result)
