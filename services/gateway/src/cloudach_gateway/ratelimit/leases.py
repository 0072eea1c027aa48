"""Keeps the leases of this process' running requests alive in Redis. Those of a killed process end by themselves."""

from __future__ import annotations

import asyncio
import logging

from ..store.store import Store, StoreDown, StoreError
from .grants import Grant
from .limiter_scripts import RENEW, Encoder

log = logging.getLogger("cloudach.gateway.ratelimit")

# Lua's argument stack is limited; and one long script would hold up everybody's admissions.
_AT_ONCE = 500


class Leases:
    def __init__(self, store: Store, encoder: Encoder) -> None:
        self._store = store
        self._encoder = encoder
        self._running: dict[tuple[str, str], dict[int, Grant]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        return sum(map(len, self._running.values()))

    def running_of(self, tenant: str, key_id: str) -> int:
        return len(self._running.get((tenant, key_id), ()))

    def add(self, grant: Grant) -> None:
        caller = grant.caller
        self._running.setdefault((caller.tenant, caller.key_id), {})[id(grant)] = grant

    def remove(self, grant: Grant) -> None:
        whose = (grant.caller.tenant, grant.caller.key_id)
        mine = self._running.get(whose)
        if mine is not None:
            mine.pop(id(grant), None)
            if not mine:
                del self._running[whose]

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_renewing(), name="lease-renewal")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._encoder.rules.lease_ttl_s / 3)
            try:
                await self.renew()
            except StoreDown:
                continue  # the store logs its own state
            except StoreError as error:
                log.error("Redis refuses to renew leases: %s", error)

    async def renew(self) -> None:
        """All at once: they share a write to Redis. Raises StoreDown or StoreError."""
        calls = []
        for (tenant, key_id), grants in self._running.items():
            leases = [grant.lease for grant in grants.values() if grant.lease]
            for start in range(0, len(leases), _AT_ONCE):
                keys, args = self._encoder.renew(tenant, key_id, leases[start : start + _AT_ONCE])
                calls.append(self._store.run(RENEW, keys, args))
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
