"""How many streams break at once: those that follow each other closely at one upstream."""

from __future__ import annotations

_AT_ONCE_S = 1.0


class Breaks:
    """One a process."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[float, int]] = {}  # upstream -> since when, how many

    def note(self, upstream: str, now: float) -> int:
        """A stream broke there; how many have in this second."""
        since, count = self._runs.get(upstream, (now, 0))
        if now - since > _AT_ONCE_S:
            since, count = now, 0
        self._runs[upstream] = since, count + 1
        return count + 1
