"""Whether, when and where a broken stream is tried again: pure; times in seconds are passed in.

A placement is one attempt with one engine. Two things are bounded. The effort: placements in a row that bring nothing,
and the time without an engine. And the harm: a request that ends engines is stopped after its second victim.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

_FIRST_S = 0.05  # the second wait is at most this long, each further one at most twice the one before
_LONGEST_S = 5.0


class Cause(Enum):
    """How a placement ended. A loss is an end that the request itself may have brought about."""

    LOST = "connection lost"
    ENDED = "ended without [DONE]"
    ENGINE_ERROR = "engine error"
    STALLED = "stalled"
    REFUSED = "refused"  # never placed: no connection, 503, a limit of the engine
    MIGRATED = "migrated"  # planned: the engine is drained
    DIFFERED = "not reproducible"  # what came again is not what was sent

    @property
    def is_loss(self) -> bool:
        return self in (Cause.LOST, Cause.ENDED, Cause.ENGINE_ERROR)


@dataclass(frozen=True, slots=True)
class FailoverLimits:
    """attempts: placements in a row without a new token. budget_s: time without an engine, a break. spread_s: the first
    attempt after a break comes within it, so that many streams that break together do not come back together."""

    attempts: int = 8
    budget_s: float = 30.0
    spread_s: float = 0.25


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """must_be_alone: the request may be what ends engines. Place it where no other request is without its first new
    token, and no two such suspects at a time, so that the next loss is its own."""

    delay_s: float
    must_be_alone: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


Verdict = RetryAfter | GiveUp


class FailoverBudget:
    """One for each request. Tell it of every placement's end."""

    __slots__ = ("_attempts", "_broke_at", "_draw", "_limits", "_victims")

    def __init__(self, limits: FailoverLimits, draw: Callable[[], float] = random.random) -> None:
        """draw: a number from 0 to 1 each time."""
        self._limits = limits
        self._draw = draw
        self._attempts = 0
        self._broke_at: float | None = None
        self._victims = 0

    @property
    def suspect(self) -> bool:
        """Whether the request may be what ends engines."""
        return self._victims > 1

    def broke(self, now: float, cause: Cause, *, new_tokens: int, alone: bool) -> Verdict:
        """A placement ended. new_tokens: what it brought that the client had not got. alone: whether at that moment no
        other request on that engine was without a new token of its placement."""
        if new_tokens > 0:
            self._attempts = 0
            self._broke_at = None
            self._victims = 0
        if self._broke_at is None:
            self._broke_at = now
        if cause.is_loss:
            self._victims += 1
            if self._victims > 2 or (self._victims == 2 and alone):
                return GiveUp(f"the request ended {'two' if self._victims == 2 else 'three'} engines")
        self._attempts += 1
        if self._attempts > self._limits.attempts:
            return GiveUp("no attempt is left")
        delay = self._delay()
        if now + delay - self._broke_at > self._limits.budget_s:
            return GiveUp("no time is left")
        return RetryAfter(delay, must_be_alone=self.suspect)

    def _delay(self) -> float:
        if self._attempts == 1:
            return self._draw() * self._limits.spread_s
        return self._draw() * min(_LONGEST_S, _FIRST_S * 2 ** (self._attempts - 1))
