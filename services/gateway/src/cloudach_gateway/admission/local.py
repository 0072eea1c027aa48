"""Admission without Redis: for the keys that this process has seen lately, under the same limits, counted here alone.

With N processes a key may get up to N times its limits while Redis is away; better than an outage. Promises made by
Redis are not known here; those made here are kept here, and end when Redis is back.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import Budget, LimitState, Overloaded
from .api_keys import PresentedKey
from .grants import Ask, Grant
from .key_records import Caller, KeyRecord
from .limiter_scripts import Rules
from .refusals import limit_state, refusal
from .window import Window

# When a stream ends is not known; as in lua/streams.lua it is a short wait at first.
_STREAM_WAIT_S = 1.0


@dataclass(slots=True)
class _Seen:
    record: KeyRecord
    limits: LimitState
    at: float  # time.monotonic()


class LocalLimiter:
    """memory_s: how long Redis' word on a key is trusted. retry_s: what callers of unknown keys are told to wait."""

    def __init__(
        self,
        rules: Rules,
        memory_s: float,
        retry_s: float,
        *,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._memory_s = memory_s
        self._retry_s = max(1.0, retry_s)
        self._most = most
        self._clock = clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()  # by digest: the proof of the secret
        self._windows: dict[tuple[str, str], Window] = {}

    def remember(self, key: PresentedKey, record: KeyRecord, limits: LimitState) -> None:
        """Redis knows this key and its secret."""
        self._seen[key.digest] = _Seen(record, limits, self._clock())
        self._seen.move_to_end(key.digest)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def forget(self, key: PresentedKey) -> None:
        self._seen.pop(key.digest, None)

    def knows(self, key: PresentedKey) -> bool:
        """Whether Redis has accepted it lately."""
        seen = self._seen.get(key.digest)
        return seen is not None and self._clock() - seen.at <= self._memory_s

    def reset(self) -> None:
        """Redis counts again."""
        self._windows.clear()

    def authenticate(self, key: PresentedKey) -> Caller:
        """Raises Overloaded for a key that is not known here, InvalidApiKey for one that expired meanwhile."""
        seen = self._known(key)
        return Caller(seen.record, self._state(seen, self._window(seen)))

    def admit(self, key: PresentedKey, ask: Ask, running: int, guided: int = 0) -> Grant:
        """running: requests of this key that this process has admitted. guided: such requests of its whole tenant.

        Raises as Admission.admit.
        """
        seen = self._known(key)
        record, limits = seen.record, seen.record.limits
        window = self._window(seen)

        def state() -> LimitState:
            return self._state(seen, window)

        model = ask.models[0] if ask.models else ""
        if not record.allows(ask.models):
            raise refusal("model", state=state(), model=model)
        if limits.tokens is not None and ask.tokens > limits.tokens:
            raise refusal("never", limits=limits, state=state(), tokens=ask.tokens)
        most_guided = self._rules.guided if limits.guided is None else limits.guided
        if ask.guided and most_guided is not None and guided >= most_guided:
            raise refusal("guided", limits=limits, state=state(), wait_s=_STREAM_WAIT_S, guided=most_guided)
        if limits.concurrency is not None and running >= limits.concurrency:
            raise refusal("streams", limits=limits, state=state(), wait_s=_STREAM_WAIT_S)
        if limits.requests is not None or limits.tokens is not None:
            decision = window.admit(
                self._now(),
                limits.requests,
                limits.tokens,
                name=ask.request_id,
                print=ask.print,
                cost=ask.tokens,
                retry=ask.retry,
            )
            if decision.obstacle is not None:
                wait_s = decision.wait / 1_000_000
                raise refusal(decision.obstacle, limits=limits, state=state(), wait_s=wait_s, tokens=ask.tokens)
        return Grant(Caller(record, state()), ask.request_id, ask.tokens, degraded=True)

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
        record = seen.record
        if record.expires_at_ms is not None and time.time() * 1000 >= record.expires_at_ms:
            raise refusal("expired")
        if record.disabled:
            raise refusal("disabled")
        return seen

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
