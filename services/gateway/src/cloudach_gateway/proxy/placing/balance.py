"""The next attempt goes to the least busy upstream of a model that has not just failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from .fading import Fading

_DOUBT_S = 60.0


class Balancer:
    """It counts what runs at each upstream. There is one per process; upstreams are base URLs.

    Where nothing runs and nothing has failed lately, nothing is remembered: upstreams come and go. Where no connection
    could be made, one request at a time tries whether that is over: each waits as long as a connection may take.
    """

    def __init__(self, *, cooldown_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._connecting: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._failed: Fading[bool] = Fading(cooldown_s)
        self._unreached: Fading[bool] = Fading(_DOUBT_S)
        self._turn = 0

    def pick(self, upstreams: Collection[str], *, tried: Collection[str] = ()) -> str:
        """It prefers upstreams that the request has not tried, then those that did not fail lately, then the least
        busy. Equals take turns."""
        now = self._clock()
        self._turn += 1
        ranked = enumerate(upstreams)
        return min(
            ranked,
            key=lambda item: (
                item[1] in tried,
                self._failed.get(item[1], now) is not None or self._is_being_tried(item[1], now),
                self._running.get(item[1], 0) + self._connecting.get(item[1], 0),
                (item[0] + self._turn) % len(upstreams),
            ),
        )[1]

    def connects(self, upstream: str) -> None:
        """A request is on its way there; `began`, `refused` or `given_up` follows."""
        self._connecting[upstream] = self._connecting.get(upstream, 0) + 1

    def began(self, upstream: str) -> None:
        self.given_up(upstream)
        self._unreached.forget(upstream)
        self._running[upstream] = self._running.get(upstream, 0) + 1

    def refused(self, upstream: str) -> None:
        """No connection to the upstream could be made."""
        self.given_up(upstream)
        now = self._clock()
        self._failed.put(upstream, True, now)
        self._unreached.put(upstream, True, now)

    def given_up(self, upstream: str) -> None:
        """Nobody waits any more for a connection to the upstream."""
        _one_less(self._connecting, upstream)

    def ended(self, upstream: str, *, failed: bool) -> None:
        """failed: it was the upstream's own fault. A client's bad request must not count against it."""
        _one_less(self._running, upstream)
        if failed:
            self._failed.put(upstream, True, self._clock())
        else:
            self._failed.forget(upstream)

    def _is_being_tried(self, upstream: str, now: float) -> bool:
        return upstream in self._connecting and self._unreached.get(upstream, now) is not None


def _one_less(counts: dict[str, int], upstream: str) -> None:
    left = counts[upstream] - 1
    if left:
        counts[upstream] = left
    else:
        del counts[upstream]
