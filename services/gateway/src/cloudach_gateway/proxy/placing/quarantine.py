"""Requests that may have ended engines go on one at a time at each engine: so the next death names its cause."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

# Of a crowd this many wait for each one that goes on beside another: their time is bounded, and so are those that may
# be taken for the one among them.
_CROWD = 16


class Quarantine:
    """One a process. Who `entered` an engine leaves it when it has got on there, or has ended."""

    def __init__(self) -> None:
        self._inside: dict[str, int] = {}
        self._waiting: dict[object, Callable[[], None]] = {}

    def empty(self, upstreams: Collection[str]) -> Collection[str]:
        """Those without such a request."""
        return [upstream for upstream in upstreams if upstream not in self._inside] if self._inside else upstreams

    def open(self, upstreams: Collection[str]) -> Collection[str]:
        """Those that one more may enter."""
        room = 1 + len(self._waiting) // _CROWD
        return [upstream for upstream in upstreams if self._inside.get(upstream, 0) < room]

    def enter(self, upstream: str) -> None:
        self._inside[upstream] = self._inside.get(upstream, 0) + 1

    def leave(self, upstream: str) -> None:
        left = self._inside[upstream] - 1
        if left:
            self._inside[upstream] = left
        else:
            del self._inside[upstream]
        for wake in list(self._waiting.values()):
            wake()

    @contextmanager
    def waiting(self, wake: Callable[[], None]) -> Iterator[None]:
        """`wake` is called when there may be room; those who came first are called first."""
        mark = object()
        self._waiting[mark] = wake
        try:
            yield
        finally:
            del self._waiting[mark]
