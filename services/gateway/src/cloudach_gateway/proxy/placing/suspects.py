"""When an engine dies, the suspects are the requests that it was given and has not brought far."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .fading import Fading

_SAME_DEATH_S = 1.0  # an engine's connections are all lost within this


class Placement:
    """A request at an engine. The owner is one object for all engines that the request is given to.

    `progressed` tells if the request has got over what may have ended an engine before. It is asked only when an engine
    has died, so that a token costs nothing.
    """

    __slots__ = ("owner", "progressed", "upstream")

    def __init__(self, upstream: str, owner: object, progressed: Callable[[], bool]) -> None:
        self.upstream = upstream
        self.owner = owner
        self.progressed = progressed


class Suspects:
    """There is one per process. Each placement that `began` has to be `ended`."""

    def __init__(self) -> None:
        self._suspects: dict[str, set[Placement]] = {}
        self._lost: Fading[deque[tuple[float, object]]] = Fading(_SAME_DEATH_S)
        self._died: Fading[bool] = Fading(_SAME_DEATH_S)

    def began(self, upstream: str, owner: object, progressed: Callable[[], bool]) -> Placement:
        placement = Placement(upstream, owner, progressed)
        self._suspects.setdefault(upstream, set()).add(placement)
        return placement

    def ended(self, placement: Placement, *, lost: bool, now: float) -> None:
        """lost: the engine of the placement may have died."""
        upstream = placement.upstream
        suspects = self._suspects.get(upstream, set())
        suspects.discard(placement)
        if not suspects:
            self._suspects.pop(upstream, None)
        if lost:
            self._died.put(upstream, True, now)
        if lost and not placement.progressed():
            owners = self._lost.get(upstream, now)
            if owners is None:
                owners = deque(maxlen=64)
            owners.append((now, placement.owner))
            self._lost.put(upstream, owners, now)

    def any_suspect(self, upstream: str) -> bool:
        suspects = self._suspects.get(upstream, set())
        for placement in list(suspects):
            if not placement.progressed():
                return True
            suspects.discard(placement)  # it is none any more: each is asked once
        return False

    def died_lately(self, upstream: str, now: float) -> bool:
        """True if an engine died there a moment ago. What is lost there now was lost with it, and tells of no other
        death."""
        return self._died.get(upstream, now) is not None

    def alone(self, upstream: str, owner: object, now: float) -> bool:
        """True if the request that was just lost (and `ended`) was the only suspect at this engine."""
        lost = self._lost.get(upstream, now)
        while lost and now - lost[0][0] > _SAME_DEATH_S:
            lost.popleft()
        return all(other is owner for _, other in lost or ()) and not self.any_suspect(upstream)
