"""Streams that break at one upstream within a second count as broken at once."""

from __future__ import annotations

from .fading import Fading

_AT_ONCE_S = 1.0


class SimultaneousBreaks:
    """There is one per process."""

    def __init__(self) -> None:
        self._runs: Fading[tuple[float, int]] = Fading(_AT_ONCE_S)  # by upstream: since when, and how many

    def count(self, upstream: str, now: float) -> int:
        """A stream broke there. Returns how many have broken there within this second."""
        since, count = self._runs.get(upstream, now) or (now, 0)
        if now - since > _AT_ONCE_S:
            since, count = now, 0
        self._runs.put(upstream, (since, count + 1), now)
        return count + 1
