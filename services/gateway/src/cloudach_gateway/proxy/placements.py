"""Which requests have been placed on an engine and not shown a token yet: the suspects, when that engine dies."""

from __future__ import annotations

from collections import deque

_SAME_DEATH_S = 1.0  # an engine's connections are all lost within this


class Placements:
    """One a process. `began`, then either `progressed` or `ended`."""

    def __init__(self) -> None:
        self._starting: dict[str, int] = {}
        self._lost: dict[str, deque[float]] = {}

    def began(self, upstream: str) -> None:
        self._starting[upstream] = self._starting.get(upstream, 0) + 1

    def progressed(self, upstream: str) -> None:
        self._one_less(upstream)

    def ended(self, upstream: str, *, lost: bool, now: float) -> None:
        self._one_less(upstream)
        if lost:
            self._lost.setdefault(upstream, deque(maxlen=64)).append(now)

    def alone(self, upstream: str, now: float) -> bool:
        """Whether the request that was just lost (and `ended`) was the only suspect at this engine."""
        together = sum(now - at <= _SAME_DEATH_S for at in self._lost.get(upstream, ()))
        return together <= 1 and not self._starting.get(upstream, 0)

    def _one_less(self, upstream: str) -> None:
        left = self._starting.get(upstream, 0) - 1
        if left > 0:
            self._starting[upstream] = left
        else:
            self._starting.pop(upstream, None)
