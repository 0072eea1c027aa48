"""Admission without Redis, for the keys that this process has seen lately. It asks the same checks, and counts alone.

With N processes a key may get up to N times its limits while Redis is away, which is better than an outage. Promises
made by Redis are not known here. Those made here are kept here, and end when Redis is back.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import Budget, GatewayError, LimitState, Overloaded
from .api_keys import PresentedKey
from .check import Alone, Check, Refusal
from .checks import CHECKS
from .grants import NOTHING_ASKED, Ask, Grant
from .key_records import Caller, KeyRecord
from .refusals import limit_state
from .rules import Rules
from .window import Window


@dataclass(slots=True)
class _Seen:
    record: KeyRecord
    limits: LimitState
    at: float  # time.monotonic()


class LocalLimiter:
    """Decides while Redis is away. It admits keys that Redis has accepted within the last `memory_s` seconds.

    Requests with other keys get 503 with `retry_s` as Retry-After.
    """

    def __init__(
        self,
        rules: Rules,
        memory_s: float,
        retry_s: float,
        *,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        checks: Sequence[Check] = CHECKS,
    ) -> None:
        self._rules = rules
        self._checks = checks
        self._memory_s = memory_s
        self._retry_s = max(1.0, retry_s)
        self._most = most
        self._clock = clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()  # by digest: the proof of the secret
        self._windows: dict[tuple[str, str], Window] = {}

    def remember(self, key: PresentedKey, record: KeyRecord, limits: LimitState) -> None:
        """Is called whenever Redis has accepted this key and its secret."""
        self._seen[key.digest] = _Seen(record, limits, self._clock())
        self._seen.move_to_end(key.digest)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def forget(self, key: PresentedKey) -> None:
        self._seen.pop(key.digest, None)

    def knows(self, key: PresentedKey) -> bool:
        """Returns True if Redis has accepted the key lately."""
        seen = self._seen.get(key.digest)
        return seen is not None and self._clock() - seen.at <= self._memory_s

    def reset(self) -> None:
        """Is called when Redis counts again."""
        self._windows.clear()

    def authenticate(self, key: PresentedKey) -> Caller:
        """Raises Overloaded for a key that is not known here, and what the checks of the key refuse with."""
        seen = self._known(key)
        return Caller(seen.record, self._state(seen, self._window(seen)))

    def admit(self, key: PresentedKey, ask: Ask, running: int, guided: int = 0) -> Grant:
        """Asks the checks, as admit.lua does. Raises as Admission.admit.

        `running` are requests of this key that this process has admitted, `guided` such requests of its whole tenant.
        """
        seen = self._known(key)
        window = self._window(seen)
        alone = Alone(seen.record, ask, self._rules, running, guided, window, self._now())
        error = self._refusal(alone, of_key=False)
        if error is not None:
            error.limits = self._state(seen, window)
            raise error
        return Grant(Caller(seen.record, self._state(seen, window)), ask.request_id, ask.tokens, degraded=True)

    def settle(self, caller: Caller, request_id: str, used: int) -> None:
        window = self._windows.get((caller.tenant, caller.key_id))
        if window is not None:
            window.correct(request_id, used)

    def _known(self, key: PresentedKey) -> _Seen:
        seen = self._seen.get(key.digest)
        if seen is None or not self.knows(key):
            raise Overloaded(
                "The server cannot check this API key right now. Please try again.",
                retry_after_s=self._retry_s,
                cause="Redis is away and this key was not seen lately",
            )
        alone = Alone(seen.record, NOTHING_ASKED, self._rules, 0, 0, self._window(seen), self._now())
        error = self._refusal(alone, of_key=True)
        if error is not None:
            raise error
        return seen

    def _refusal(self, alone: Alone, *, of_key: bool) -> GatewayError | None:
        """Returns the error of the first check that refuses."""
        for check in self._checks:
            if check.of_key != of_key or check.alone is None:
                continue
            refused = check.alone(alone)
            if refused is not None:
                words = Refusal(alone.ask, alone.record.limits, alone.rules, refused.wait_s)
                return check.refusals[refused.status](words)
        return None

    def _window(self, seen: _Seen) -> Window:
        record = seen.record
        window = self._windows.get((record.tenant, record.id))
        if window is None:
            window = Window(round(self._rules.window_s * 1e6), round(self._rules.grace_s * 1e6))
            requests, tokens = _used(seen.limits.requests), _used(seen.limits.tokens)
            window.seed(round(seen.at * 1e6), requests or (1 if tokens else 0), tokens)
            self._windows[record.tenant, record.id] = window
        return window

    def _state(self, seen: _Seen, window: Window) -> LimitState:
        requests, tokens, reset = window.booked(self._now())
        return limit_state(seen.record.limits, requests, tokens, reset / 1_000_000)

    def _now(self) -> int:
        return round(self._clock() * 1_000_000)


def _used(budget: Budget | None) -> int:
    return 0 if budget is None else budget.limit - budget.remaining
