"""Requests that may have ended engines go on one at a time at each engine: so the next death names its cause."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


class Quarantine:
    """One a process. Who `entered` an engine leaves it when it has got on there, or has ended."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._waiting: dict[object, Callable[[], None]] = {}

    def free(self, upstreams: Collection[str]) -> Collection[str]:
        """Those without such a request."""
        return [upstream for upstream in upstreams if upstream not in self._taken] if self._taken else upstreams

    def enter(self, upstream: str) -> None:
        self._taken.add(upstream)

    def leave(self, upstream: str) -> None:
        self._taken.discard(upstream)
        for wake in list(self._waiting.values()):
            wake()

    @contextmanager
    def waiting(self, wake: Callable[[], None]) -> Iterator[None]:
        """`wake` is called when an engine may have become free; those who came first are called first."""
        mark = object()
        self._waiting[mark] = wake
        try:
            yield
        finally:
            del self._waiting[mark]
