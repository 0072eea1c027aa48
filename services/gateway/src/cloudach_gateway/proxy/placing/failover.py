"""The failover budget decides if and when a broken stream is tried again. Pure: times in seconds are passed in.

A placement is one attempt that an engine took. Two things are bounded. The effort: placements in a row that bring
nothing, and the time without an engine. And the harm: a request that ends engines is stopped after its second victim.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from .cause import Cause

# New tokens from which a placement counts as progress. A request that ends an engine with its first step or its second
# has brought one token by then, or the few of one speculative step; with 8 it has got over what ended the last one.
PROGRESS = 8

_APART_S = 0.002  # an engine begins some hundred prefills a second
_SHORTEST_S = 0.1  # the second wait is drawn up to this, each further one up to twice the one before
_LONGEST_S = 2.0
_TOO_LATE = 0.05  # of the budget: what is left is no time for another attempt


@dataclass(frozen=True, slots=True)
class FailoverLimits:
    """`attempts` placements in a row may bring no progress. `budget_s` is the time without an engine since then.

    The first attempt after a break comes within `spread_s`, and sooner if few broke, because what broke together
    must not come back together.
    """

    attempts: int = 8
    budget_s: float = 30.0
    spread_s: float = 0.25


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """must_be_alone: the request may be what ends engines. It has to be placed where every other request has
    progressed, and no other suspect is, because the next loss is its own then."""

    delay_s: float
    must_be_alone: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The reason is a few words for the log and the docs. A request that ends engines must not be sent again."""

    reason: str
    ends_engines: bool = False


Verdict = RetryAfter | GiveUp


class FailoverBudget:
    """There is one for each request. It has to hear of every attempt that ended, and of each that an engine took."""

    __slots__ = ("_attempts", "_draw", "_limits", "_placements", "_unread", "_victims", "_waited_s", "_waits_since")

    def __init__(self, limits: FailoverLimits, draw: Callable[[], float] = random.random) -> None:
        """`draw` returns a random number from 0 to 1."""
        self._limits = limits
        self._draw = draw
        self._victims = 0
        self._unread = 0
        self._waits_since: float | None = None
        self._forget_effort()

    def placed(self, now: float) -> None:
        """An engine took the request, and has begun to answer."""
        if self._waits_since is not None:
            self._waited_s += now - self._waits_since
            self._waits_since = None

    def broke(self, now: float, cause: Cause, *, new_tokens: int, alone: bool, together: int | None = None) -> Verdict:
        """An attempt ended. `new_tokens` are those that it brought beyond what the client was sent.

        alone: every other request on that engine had progressed there. together: how many streams broke at once, this
        one included, if that is known, because few need not spread far.
        """
        if new_tokens >= PROGRESS:
            self._forget_effort()
            self._victims = self._unread = 0
        if self._waits_since is None:
            self._waits_since = now
        if cause.is_final:
            return GiveUp(cause.value)
        if cause.is_loss:
            self._victims += 1
            if self._victims > 2:
                return GiveUp("the request ended three engines", ends_engines=True)
            if self._victims == 2 and alone:
                return GiveUp("the request ended two engines", ends_engines=True)
        if cause is Cause.NO_ANSWER:
            self._unread += 1
            if self._unread > 1:  # that is how this model's engines speak
                return GiveUp("no answer twice")
        if not cause.untaken:
            self._placements += 1
            if self._placements > self._limits.attempts:
                return GiveUp("no attempt is left")
        left_s = self._limits.budget_s - self._waited_s - (now - self._waits_since)
        if left_s <= _TOO_LATE * self._limits.budget_s:
            return GiveUp("no time is left")
        return RetryAfter(self._delay_s(together, left_s), must_be_alone=self._victims > 1)

    def _delay_s(self, together: int | None, left_s: float) -> float:
        """A random delay, up to a bound that doubles, so that requests that failed together spread out."""
        bound_s = self._limits.spread_s
        if together is not None:
            bound_s = min(bound_s, together * _APART_S)
        if self._attempts:
            bound_s = min(_LONGEST_S, _SHORTEST_S * 2.0 ** (self._attempts - 1))
        self._attempts += 1
        return self._draw() * min(bound_s, left_s)

    def _forget_effort(self) -> None:
        self._attempts = 0
        self._placements = 0
        self._waited_s = 0.0
