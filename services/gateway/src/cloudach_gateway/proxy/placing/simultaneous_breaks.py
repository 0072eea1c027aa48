"""How many streams break at once: those that follow each other closely at one upstream."""

from __future__ import annotations

from .fading import Fading

_AT_ONCE_S = 1.0


class SimultaneousBreaks:
    """One a process."""

    def __init__(self) -> None:
        self._runs: Fading[tuple[float, int]] = Fading(_AT_ONCE_S)  # by upstream: since when, and how many

    def note(self, upstream: str, now: float) -> int:
        """A stream broke there; how many have in this second."""
        since, count = self._runs.get(upstream, now) or (now, 0)
        if now - since > _AT_ONCE_S:
            since, count = now, 0
        self._runs.put(upstream, (since, count + 1), now)
        return count + 1
