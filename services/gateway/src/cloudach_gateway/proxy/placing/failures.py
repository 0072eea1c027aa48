"""Makes the error for an attempt that failed before its answer began, from what the engine sent. No I/O."""

from __future__ import annotations

from ...errors import GatewayError, UpstreamError, UpstreamTimeout
from ..engine.answer_headers import encoding, media_type
from ..engine.chunk import BadChunk, EngineReportedError, EngineShutsDown, TooLarge
from ..engine.exchange import Exchange
from ..engine.refusals import from_error_object, from_response, may_retry, names_dead_engine, status_in, too_large
from ..engine.routes import Route
from ..engine.whole_answer import NoAnswer
from .cause import Cause


class PlacementFailed(Exception):
    """No engine has begun to answer. The error is for the client, if there is no further attempt.

    may_retry: another attempt is made also before the first byte, where an error may still have its own status.
    unsent: no engine has heard of the request.
    """

    def __init__(self, error: GatewayError, *, cause: Cause, may_retry: bool = False, unsent: bool = False) -> None:
        super().__init__(error.cause)
        self.error = error
        self.cause = cause
        self.may_retry = may_retry
        self.unsent = unsent


def no_engine() -> PlacementFailed:
    error = _unreachable("the model has no engine at the moment")
    return PlacementFailed(error, cause=Cause.REFUSED, may_retry=True, unsent=True)


def unreachable(why: str, *, died: bool = False) -> PlacementFailed:
    """No connection could be made. Died: there was one a moment ago, so that the engine has ended since."""
    cause = Cause.LOST if died else Cause.REFUSED
    return PlacementFailed(_unreachable(why), cause=cause, may_retry=True, unsent=not died)


def late(exchange: Exchange, waited_s: float) -> PlacementFailed:
    error = UpstreamTimeout(
        "The model did not begin to answer in time.",
        cause=f"{exchange.upstream}: no first token after {waited_s:.0f} s",
    )
    return PlacementFailed(error, cause=Cause.STALLED)


def lost(exchange: Exchange, *, after_death: bool) -> PlacementFailed:
    """Returns the failure of an attempt whose connection ended before the answer began.

    after_death: an engine at this address had just died.
    """
    if isinstance(exchange.problem, TooLarge):
        return PlacementFailed(too_large(exchange.problem, upstream=exchange.upstream), cause=Cause.TOO_LARGE)
    # A killed process ends its connections before its listener: what comes back at once is taken up, and reset.
    cause = Cause.REFUSED if after_death and not exchange.status else Cause.LOST
    why = f"{exchange.upstream}: {exchange.problem or 'an answer without any event'}"
    error = _unreachable(why)
    if exchange.status:
        error = UpstreamError("The model's engine broke off before it answered.", cause=why)
    return PlacementFailed(error, cause=cause, may_retry=True)


def refused(exchange: Exchange, route: Route, *, events: bool) -> PlacementFailed:
    """The engine's status is not 200."""
    status, body = exchange.status, exchange.body
    error = from_response(status, body, upstream=exchange.upstream, unserved=route.unserved, headers=exchange.headers)
    if names_dead_engine(status, body):
        # vLLM begins a stream with its 200 at once: what is refused instead had died before this request came.
        return PlacementFailed(error, cause=Cause.REFUSED if events else Cause.ENGINE_ERROR, may_retry=True)
    if may_retry(status, body):
        return PlacementFailed(error, cause=Cause.REFUSED, may_retry=True)
    if status in (404, 429):
        return PlacementFailed(error, cause=Cause.BUSY)
    return PlacementFailed(error, cause=Cause.FAILED if status >= 500 else Cause.REQUEST_REFUSED)


def refused_late(exchange: Exchange, payload: bytes) -> PlacementFailed:
    """The engine refused after its 200: nothing was generated."""
    status = status_in(payload)
    error = from_error_object(payload, upstream=exchange.upstream)
    if names_dead_engine(status, payload):
        return PlacementFailed(error, cause=Cause.ENGINE_ERROR, may_retry=True)
    if status in (502, 503):
        return PlacementFailed(error, cause=Cause.BUSY, may_retry=True)
    return PlacementFailed(error, cause=Cause.REQUEST_REFUSED)


def another_kind(exchange: Exchange, problem: BadChunk, *, events: bool) -> PlacementFailed:
    """The answer is not of the kind that was asked for, such as a page."""
    kind, encoded = media_type(exchange.headers), encoding(exchange.headers)
    what = (kind or "something") + (f" in {encoded}" if encoded else "")
    asked = "an event stream" if events else "JSON"
    error = UpstreamError(f"The model's engine answered with {what} where {asked} was asked for.")
    error.cause = f"{exchange.upstream}: {what}, {problem}"
    return PlacementFailed(error, cause=Cause.FAILED)


def unusable(exchange: Exchange, problem: BadChunk | EngineReportedError | NoAnswer, *, whole: bool) -> PlacementFailed:
    """The first words are an error, hold nothing, or cannot be read. Whole: they are a whole answer."""
    if isinstance(problem, EngineReportedError) and not isinstance(problem, EngineShutsDown):
        return refused_late(exchange, problem.payload)
    if isinstance(problem, EngineShutsDown):
        cause = Cause.MIGRATED
    else:
        cause = Cause.FAILED if whole and isinstance(problem, BadChunk) else Cause.NO_ANSWER
    error = UpstreamError("The model's engine failed to answer.", cause=f"{exchange.upstream}: {problem}")
    return PlacementFailed(error, cause=cause, may_retry=not cause.is_final)


def _unreachable(cause: str) -> UpstreamError:
    return UpstreamError("The model's engine could not be reached.", cause=cause)
