"""The pace says how long to wait until the next look at a Model. However many Models there are, the rate of all looks
is bounded.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..key import Key
from ..settings import Ray


class Pace:
    """These pauses are for looks that no change in Kubernetes calls for. Such a change is looked at at once.

    Models on their way and Models at rest are bounded by `polls_per_s` each, so many at rest delay none on its way.
    """

    def __init__(self, settings: Ray, chance: Callable[[float, float], float] = random.uniform) -> None:
        self._settings = settings
        self._chance = chance
        self._moving: set[Key] = set()

    def pause_s(self, key: Key, *, moving: bool, models: int) -> float:
        """Returns the pause before the next look. `models` is the number of all Models."""
        settings = self._settings
        if moving:
            self._moving.add(key)
            return max(settings.poll_s, len(self._moving) / settings.polls_per_s)
        self._moving.discard(key)
        # The chance keeps looks that began at the same moment from staying together.
        return max(settings.steady_poll_s, models / settings.polls_per_s) * self._chance(0.9, 1.1)

    def forget(self, key: Key) -> None:
        self._moving.discard(key)
