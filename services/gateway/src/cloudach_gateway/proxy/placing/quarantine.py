"""Suspects, the requests that may have ended an engine, go on one at a time per engine.

So the next death of an engine has one cause.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

# One request is in quarantine per engine. When more than 16 wait, one more per 16 may run at the same engine, because
# their time is bounded.
_CROWD = 16


class Quarantine:
    """The quarantine counts the suspects at each engine, and wakes those that wait for an engine without suspects.

    Each process has one quarantine. A suspect leaves it once it has progressed at its engine or its attempt has ended.
    """

    def __init__(self) -> None:
        self._inside: dict[str, int] = {}
        self._waiting: dict[object, Callable[[], None]] = {}

    def empty(self, upstreams: Collection[str]) -> Collection[str]:
        """Returns the upstreams that have no request in quarantine."""
        return [upstream for upstream in upstreams if upstream not in self._inside] if self._inside else upstreams

    def open(self, upstreams: Collection[str]) -> Collection[str]:
        """Returns the upstreams whose quarantine one more request may enter."""
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
        """Has `wake` called when there may be room. The requests that came first are woken first."""
        mark = object()
        self._waiting[mark] = wake
        try:
            yield
        finally:
            del self._waiting[mark]
