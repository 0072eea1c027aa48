"""Finds out if Redis may evict what it holds. If it may, keys and totals can vanish without an error.

Totals and leases have a lifetime. So the `volatile-*` policies, which many managed services set, may drop them too.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable

from ..store import layout
from ..store.store import Store, StoreDown, StoreError
from .scripts import MEMORY

log = logging.getLogger("cloudach.gateway.admission")

_KEEPS_ALL = "noeviction"
_POLICY = re.compile(rb"^maxmemory_policy:([a-z-]+)", re.M)


class Eviction:
    """Keeps asking Redis for its eviction policy, and calls `on_change` with True or False whenever that changes.

    `policy` is the policy by which Redis may evict. It is None while Redis does not evict, or does not say.
    """

    def __init__(self, store: Store, every_s: float, on_change: Callable[[bool], None] = lambda _: None) -> None:
        self.policy: str | None = None
        self._store = store
        self._every_s = every_s
        self._on_change = on_change
        self._again = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        store.on_change.append(self._redis_changed)

    async def start(self) -> None:
        await self.look()
        self._task = asyncio.create_task(self._keep_looking(), name="eviction-policy")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Asks Redis once for its eviction policy, and reports a change. Never raises.

        A Redis that does not answer this question is used as before.
        """
        try:
            said = await self._store.run(MEMORY, (layout.PROBE,), ())
        except StoreDown:  # the store logs its own state
            return
        except StoreError as error:
            log.debug("Redis does not tell its eviction policy: %s", error)
            return
        found = _POLICY.search(said) if isinstance(said, bytes) else None
        policy = None if found is None or found[1].decode() == _KEEPS_ALL else found[1].decode()
        if policy == self.policy:
            return
        self.policy = policy
        self._on_change(policy is not None)
        if policy is None:
            log.info("Redis no longer evicts keys")
        else:
            log.warning(
                "Redis may evict API keys and usage when its memory is full: its maxmemory-policy is %s; "
                "set it to noeviction",
                policy,
            )

    def _redis_changed(self, up: bool) -> None:
        if up:  # after a failover it may be another Redis
            self._again.set()

    async def _keep_looking(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._again.wait()
            except TimeoutError:
                pass
            self._again.clear()
            await self.look()
