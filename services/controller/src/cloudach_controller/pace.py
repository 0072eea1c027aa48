"""How long until the next look at a Model. However many Models there are, all looks together have a bound."""

from __future__ import annotations

import random
from collections.abc import Callable

from .runtime.informer import Key
from .settings import Ray


class Pace:
    """Looks that nothing else calls for: what changes in Kubernetes is looked at at once, whatever is said here.

    Models on their way and Models at rest each have the bound `polls_per_s`, so that many that rest delay none that
    moves.
    """

    def __init__(self, settings: Ray, chance: Callable[[float, float], float] = random.uniform) -> None:
        self._settings = settings
        self._chance = chance
        self._moving: set[Key] = set()

    def pause_s(self, key: Key, *, moving: bool, models: int) -> float:
        """`models`: how many there are."""
        settings = self._settings
        if moving:
            self._moving.add(key)
            return max(settings.poll_s, len(self._moving) / settings.polls_per_s)
        self._moving.discard(key)
        # Not all at the same moment for ever, because they began at the same moment.
        return max(settings.steady_poll_s, models / settings.polls_per_s) * self._chance(0.9, 1.1)

    def forget(self, key: Key) -> None:
        self._moving.discard(key)
