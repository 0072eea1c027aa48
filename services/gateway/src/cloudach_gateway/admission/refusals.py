"""Makes the error for a refused caller, with the state of its limits. Both limiters refuse through this module."""

from __future__ import annotations

from ..errors import Budget, GatewayError, LimitState
from .check import Refusal
from .checks import CHECKS
from .key_records import KeyLimits

_REFUSALS = {status: error for check in CHECKS for status, error in check.refusals.items()}


def limit_state(limits: KeyLimits, requests_used: int, tokens_used: int, reset_s: float) -> LimitState:
    """Both numbers are what is booked in the window, promises included."""

    def budget(limit: int | None, used: int) -> Budget | None:
        return None if limit is None else Budget(limit, max(0, limit - used), reset_s if used > 0 else 0.0)

    return LimitState(budget(limits.requests, requests_used), budget(limits.tokens, tokens_used))


def error_of(status: str, refusal: Refusal, state: LimitState | None) -> GatewayError:
    """The error for a check's status. `state` is what the rate-limit headers will say."""
    error = _REFUSALS[status](refusal)
    error.limits = state
    return error
