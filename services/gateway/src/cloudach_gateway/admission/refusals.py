"""The caller's view of a refused admission: one place for the words, whichever limiter refused."""

from __future__ import annotations

import math
from typing import Literal

from ..errors import Budget, GatewayError, InvalidApiKey, LimitState, NeverFits, PermissionDenied, RateLimited
from .key_records import KeyLimits

Status = Literal["unknown", "expired", "disabled", "model", "never", "requests", "tokens", "streams", "guided"]


def limit_state(limits: KeyLimits, requests_used: int, tokens_used: int, reset_s: float) -> LimitState:
    """`*_used`: booked in the window, promises included."""

    def budget(limit: int | None, used: int) -> Budget | None:
        return None if limit is None else Budget(limit, max(0, limit - used), reset_s if used > 0 else 0.0)

    return LimitState(budget(limits.requests, requests_used), budget(limits.tokens, tokens_used))


def refusal(
    status: Status,
    *,
    limits: KeyLimits | None = None,
    state: LimitState | None = None,
    wait_s: float = 0.0,
    tokens: int = 0,
    model: str = "",
    guided: int | None = None,
) -> GatewayError:
    """guided: how many of those the tenant may run where its key does not say."""
    limits = limits or KeyLimits()
    found = _refusal(status, limits, wait_s, tokens, model, guided if limits.guided is None else limits.guided)
    found.limits = state
    return found


def _refusal(
    status: Status, limits: KeyLimits, wait_s: float, tokens: int, model: str, guided: int | None
) -> GatewayError:
    if status == "unknown":
        return InvalidApiKey("Incorrect API key provided.")
    if status == "expired":
        return InvalidApiKey("This API key has expired.")
    if status == "disabled":
        return PermissionDenied("This API key is disabled.", code="key_disabled")
    if status == "model":
        return PermissionDenied(
            f"This API key may not use the model `{model}`.", code="model_not_allowed", param="model"
        )
    if status == "never":
        return NeverFits(
            f"Request too large: it needs up to {tokens} tokens, and the limit of this key is {limits.tokens} tokens "
            "per minute. Shorten the prompt or lower max_tokens.",
        )
    wait = f"Please try again in {_duration(wait_s)}."
    if status == "streams":
        what = f"Too many concurrent requests: this key may have {limits.concurrency} at a time."
        return RateLimited(f"{what} {wait}", kind="requests", retry_after_s=wait_s)
    if status == "guided":
        what = (
            "Too many guided requests (response_format, structured outputs, required tools): "
            f"this tenant may have {guided} at a time."
        )
        return RateLimited(f"{what} {wait}", kind="requests", retry_after_s=wait_s)
    if status == "requests":
        what = f"Rate limit reached: {limits.requests} requests per minute."
        return RateLimited(f"{what} {wait}", kind="requests", retry_after_s=wait_s)
    what = f"Rate limit reached: {limits.tokens} tokens per minute, this request needs up to {tokens}."
    return RateLimited(f"{what} {wait}", kind="tokens", retry_after_s=wait_s)


def _duration(seconds: float) -> str:
    return f"{math.ceil(seconds * 1000)}ms" if seconds < 1 else f"{math.ceil(seconds)}s"
