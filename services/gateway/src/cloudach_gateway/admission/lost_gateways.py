"""Decides when requests of a silent gateway may be declared lost, and logs those that were."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..store.store import Reply, Store

log = logging.getLogger("cloudach.gateway.admission")

# A lost request takes about 25 us of Redis' time.
_AT_ONCE = 32


class LostGateways:
    """Redis declares a request lost that no gateway has renewed for two lease lives (renew.lua).

    After an outage of Redis that is true of every request. So for one lease life nothing is declared lost, and the
    gateways that run the requests come first.
    """

    def __init__(self, store: Store, lease_ttl_s: float, on_lost: Callable[[int], None]) -> None:
        self._patience_s = lease_ttl_s
        self._on_lost = on_lost
        self._connected_at = time.monotonic() if store.up else float("inf")
        store.on_change.append(self._redis_changed)

    @property
    def most_lost(self) -> int:
        """Returns how many requests one call of renew.lua may declare lost."""
        return _AT_ONCE if time.monotonic() - self._connected_at > self._patience_s else 0

    def found(self, reply: Reply) -> int:
        """Logs and counts what renew.lua declared lost by its `reply`. Returns how many requests that were."""
        if reply:
            names = b" ".join(reply[:5]).decode(errors="replace")
            log.warning("%d requests of a gateway that is gone are billed as noted last: %s", len(reply), names)
            self._on_lost(len(reply))
        return len(reply)

    def _redis_changed(self, up: bool) -> None:
        self._connected_at = time.monotonic() if up else float("inf")
