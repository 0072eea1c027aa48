"""Names how an attempt ended, and says what follows from that for its engine and for its request."""

from __future__ import annotations

from enum import Enum


class Cause(Enum):
    """A cause says how an attempt ended. The texts are for the log."""

    COMPLETED = "completed"
    LET_GO = "let go"  # nobody waits for it any more: the client left, or the request's time is over
    LOST = "connection lost"
    ENGINE_ERROR = "engine error"
    STALLED = "stalled"
    NO_ANSWER = "no answer"  # the engine is there, and what it says holds nothing or cannot be read
    MIGRATED = "migrated"  # planned: its engine is drained
    REFUSED = "refused"  # no engine took it: no connection, 503
    BUSY = "not now"  # the engine did not take it, and is not at fault: 404, 429
    REDRAWN = "drawn otherwise"  # sampled tokens did not bring the text that was sent: another draw may
    DIFFERED = "not reproducible"
    REQUEST_REFUSED = "request refused"
    FAILED = "failed to answer"
    TOO_LARGE = "too large"

    # Plain attributes, because each request asks for most of them and an enum's members are slow to look up in a set.

    label: str
    """The name of this end in log lines and metrics."""
    is_failure: bool
    is_loss: bool
    """True if the request itself may have ended the engine."""
    blames_engine: bool
    """True if the engine is at fault, so that the next requests go elsewhere if they can."""
    is_final: bool
    """True if another engine would do no better."""
    untaken: bool
    """True if no engine took the request, so that `failover.attempts` does not count the attempt."""


_NO_FAILURE = frozenset({Cause.COMPLETED, Cause.LET_GO})
_LOSSES = frozenset({Cause.LOST, Cause.ENGINE_ERROR})
_FINAL = frozenset({Cause.DIFFERED, Cause.REQUEST_REFUSED, Cause.FAILED, Cause.TOO_LARGE})
_UNTAKEN = frozenset({Cause.REFUSED, Cause.BUSY})
_ENGINE_AT_FAULT = _LOSSES | {
    Cause.STALLED,
    Cause.NO_ANSWER,
    Cause.MIGRATED,
    Cause.REFUSED,
    Cause.REDRAWN,
    Cause.FAILED,
}

for _cause in Cause:
    _cause.label = _cause.name.lower()
    _cause.is_failure = _cause not in _NO_FAILURE
    _cause.is_loss = _cause in _LOSSES
    _cause.blames_engine = _cause in _ENGINE_AT_FAULT
    _cause.is_final = _cause in _FINAL
    _cause.untaken = _cause in _UNTAKEN
