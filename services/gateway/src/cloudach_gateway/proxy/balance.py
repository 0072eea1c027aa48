"""Which of a model's upstreams gets the next attempt: the least busy one that has not just failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from .fading import Fading


class Balancer:
    """Counts what runs at each upstream. One instance a process; URLs are its keys.

    Where nothing runs and nothing has just failed, nothing is remembered: upstreams come and go.
    """

    def __init__(self, *, cooldown_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[str, int] = {}
        self._failed: Fading[bool] = Fading(cooldown_s)
        self._turn = 0

    def pick(self, upstreams: Collection[str], *, tried: Collection[str] = ()) -> str:
        """Prefers those not tried by this request, then those that did not fail lately, then the least busy; equals
        take turns."""
        now = self._clock()
        self._turn += 1
        ranked = enumerate(upstreams)
        return min(
            ranked,
            key=lambda item: (
                item[1] in tried,
                self._failed.get(item[1], now) is not None,
                self._running.get(item[1], 0),
                (item[0] + self._turn) % len(upstreams),
            ),
        )[1]

    def began(self, upstream: str) -> None:
        self._running[upstream] = self._running.get(upstream, 0) + 1

    def refused(self, upstream: str) -> None:
        """No connection could be made."""
        self._failed.put(upstream, True, self._clock())

    def ended(self, upstream: str, *, failed: bool) -> None:
        """`failed` only for what is the upstream's own fault: a client's bad request must not count against it."""
        left = self._running[upstream] - 1
        if left:
            self._running[upstream] = left
        else:
            del self._running[upstream]
        if failed:
            self._failed.put(upstream, True, self._clock())
        else:
            self._failed.forget(upstream)
