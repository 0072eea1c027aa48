"""One placement of a request: an engine is picked, the request sent, and its first events or whole answer awaited."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...catalog import ServedModel
from ...errors import GatewayError, UpstreamError, UpstreamTimeout
from ...settings import Timeouts
from ..engine.answer_headers import encoding, media_type
from ..engine.chunk import BadChunk, EngineReportedError, EngineShutsDown, TooLarge
from ..engine.exchange import Exchange, Happened
from ..engine.refusals import from_error_object, from_response, may_retry, names_dead_engine, status_in, too_large
from ..engine.routes import Route
from ..engine.whole_answer import NoAnswer, whole_answer
from ..stream.form import begins_answer
from .failover import Cause
from .fleet import Engines, Unreachable
from .suspects import Placement
from .watch import Watch

_REFUSAL_S = 5.0
_MOST_BEFORE_A_CHOICE = 16 * 1024 * 1024  # bytes
_OF_AN_EVENT = 64  # bytes that it takes besides its own


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """`fields`: the body as a mapping, from which a continuation is made. failover: whether it may be continued.
    spent_s: of its whole time, before. patience_s: how long it waits for an engine while none can be reached."""

    model: ServedModel
    route: Route
    body: bytes
    request_id: str
    fields: dict[str, Any] = field(default_factory=dict)
    failover: bool = True
    spent_s: float = 0.0
    patience_s: float = 0.0

    @property
    def path(self) -> str:
        return self.route.path


class PromptMeter(Protocol):
    """Who has to know whether an engine works on the prompt."""

    def prompt_sent(self) -> None:
        """An engine has the request from now on."""

    def engine_lost(self) -> None:
        """That engine has refused the request or has broken off."""


class PlacementFailed(Exception):
    """It came to nothing. cause: None when another engine would say the same. may_retry: also before the first byte,
    where an error may still have its own status. unsent: no engine has heard of the request."""

    def __init__(self, error: GatewayError, *, cause: Cause | None, may_retry: bool, unsent: bool = False) -> None:
        super().__init__(error.cause)
        self.error = error
        self.cause = cause
        self.may_retry = may_retry
        self.unsent = unsent


class Placer:
    """`place` as often as needed; `end` gives the current exchange back.

    progressed: set by who knows how far the current placement has brought the request.
    """

    def __init__(
        self, engines: Engines, timeouts: Timeouts, request: EngineRequest, watch: Watch, meter: PromptMeter
    ) -> None:
        self._meter = meter
        self._engines = engines
        self._timeouts = timeouts
        self._request = request
        self._watch = watch
        self._model = request.model  # as it was when this was last looked up
        self._tried: list[str] = []
        self._engine = ""  # what a loss is counted at: an upstream, or all that are behind several
        self._owner = object()  # what is remembered of a request that was lost with its engine is only who it was
        self._placement: Placement | None = None
        self._apart: str | None = None  # the engine where it is in quarantine
        self.progressed: Callable[[], bool] = _not_yet
        self.exchange: Exchange | None = None

    async def place(
        self,
        path: str,
        body: bytes,
        *,
        events: bool,
        until: float = -math.inf,
        whole_will_do: bool = False,
        alone_until: float | None = None,
    ) -> Exchange:
        """An engine that has begun to answer: `pending` has a first choice, or `answer` is there.

        until: how long it waits for an engine while the model has none.
        whole_will_do: whether an engine that was asked for events may give the whole answer instead. alone_until: the
        request may be what ends engines, and waits so long for one where it is the only such request.

        Raises PlacementFailed, UpstreamTimeout.
        """
        if alone_until is None:
            upstream = await self._any(until)
        else:
            upstream = await self._apart_from_others(alone_until)
        self._tried.append(upstream)
        self._engine = self._model.shared or upstream
        was_dead = self._engines.placements.died_lately(self._engine, self._watch.clock())
        self._placement = self._engines.placements.began(self._engine, self._owner, self.progressed)
        exchange = await self._open(upstream, path, body, events)
        due = self._due(events)
        happened = await self._begun(exchange, due)
        if happened is Happened.BROKE and exchange.resend:
            # The engine had closed this idle connection, which says nothing about the engine.
            self._engines.close(exchange, failed=False)
            # What had a connection a moment ago and has no listener now has died.
            gone = Cause.REFUSED if was_dead else Cause.LOST
            exchange = await self._open(upstream, path, body, events, fresh=True, gone=gone)
            due = self._due(events)
            happened = await self._begun(exchange, due)
        if happened is Happened.BROKE:
            raise self._lost(exchange, was_dead)
        if exchange.status != 200:
            raise self._refused(exchange, events)
        try:
            if happened is Happened.WHOLE:
                self._read_whole(exchange, events=events, whole_will_do=whole_will_do or not events)
            elif not await self._first_choice(exchange, due):
                raise self._lost(exchange, was_dead)
        except EngineShutsDown as problem:
            raise self._unusable(exchange, problem, cause=Cause.MIGRATED) from problem
        except EngineReportedError as reported:
            raise self._refused_late(exchange, reported.payload) from reported
        except NoAnswer as problem:
            raise self._unusable(exchange, problem, cause=Cause.NO_ANSWER) from problem
        except BadChunk as problem:
            cause = Cause.NO_ANSWER if happened is not Happened.WHOLE else None
            raise self._unusable(exchange, problem, cause=cause) from problem
        return exchange

    @property
    def apart(self) -> bool:
        """Whether others wait until it has progressed."""
        return self._apart is not None

    def rejoin(self) -> None:
        """It has progressed, or has ended: the engine is free for the next suspect."""
        apart, self._apart = self._apart, None
        if apart is not None:
            self._engines.quarantine.leave(apart)

    def alone(self) -> bool:
        """Whether, of the requests that the engine just lost had been given lately, this was the only one."""
        return self._engines.placements.alone(self._engine, self._owner, self._watch.clock())

    def broke(self, now: float) -> int:
        """How many streams have broken at the engine just lost in this second, this one included."""
        return self._engines.breaks.note(self._engine, now)

    @property
    def untried(self) -> bool:
        """Whether the model has an upstream now that this request has not been to."""
        return not {*self._engines.directory.current(self._request.model).upstreams} <= {*self._tried}

    def end(self, *, failed: bool, lost: bool = False) -> None:
        """failed: by the engine's own fault. lost: the engine may have died."""
        self.rejoin()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._engines.close(exchange, failed=failed)
        placement, self._placement = self._placement, None
        if placement is not None:
            self._engines.placements.ended(placement, lost=lost, now=self._watch.clock())

    def close(self) -> None:
        """Ends it for good: what it holds of the request is let go."""
        self.end(failed=False)
        self.progressed = _not_yet

    async def _any(self, until: float) -> str:
        picked: list[str] = []

        def found() -> bool:
            self._model = self._engines.directory.current(self._request.model)
            upstream = self._engines.pick(self._model, self._tried)
            if upstream is not None:
                picked.append(upstream)
            return upstream is not None

        if not found():
            with self._engines.directory.telling(self._request.model, self._watch.look_again):
                if not await self._watch.holds(found, until):
                    error = _unreachable("the model has no engine at the moment")
                    raise PlacementFailed(error, cause=Cause.REFUSED, may_retry=True, unsent=True)
        return picked[-1]

    async def _apart_from_others(self, until: float) -> str:
        picked: list[str] = []

        def found() -> bool:
            self._model = self._engines.directory.current(self._request.model)
            upstream = self._engines.pick_for_one_alone(self._model, self._tried)
            if upstream is not None:
                picked.append(upstream)
            return upstream is not None

        look_again = self._watch.look_again
        with (
            self._engines.quarantine.waiting(look_again),
            self._engines.directory.telling(self._request.model, look_again),
        ):
            if not await self._watch.holds(found, until):
                error = UpstreamError("The model's engines are restarting.", cause="no engine for it alone")
                raise PlacementFailed(error, cause=None, may_retry=False)
        self._apart = self._model.shared or picked[-1]
        self._engines.quarantine.enter(self._apart)
        return picked[-1]

    async def _open(
        self,
        upstream: str,
        path: str,
        body: bytes,
        events: bool,
        *,
        fresh: bool = False,
        gone: Cause = Cause.REFUSED,
    ) -> Exchange:
        """gone: what it means if there is no connection."""
        self.exchange = None
        try:
            self.exchange = await self._engines.open(
                self._model,
                upstream,
                path,
                body,
                request_id=self._request.request_id,
                post=self._watch.post,
                events=events,
                fresh=fresh,
            )
        except Unreachable as error:
            self.end(failed=True, lost=gone is Cause.LOST)
            unsent = gone is Cause.REFUSED
            raise PlacementFailed(_unreachable(str(error)), cause=gone, may_retry=True, unsent=unsent) from error
        self._meter.prompt_sent()
        return self.exchange

    def _due(self, events: bool) -> float:
        return self._watch.clock() + (self._timeouts.first_token_s if events else self._timeouts.total_s)

    async def _first_choice(self, exchange: Exchange, due: float) -> bool:
        """Waits until the answer begins, beyond events that have nothing of it. False: it was lost before.

        Raises EngineReportedError, BadChunk, NoAnswer.
        """
        looked_at = held = 0
        while exchange.pending or not exchange.done:
            new = exchange.pending[looked_at:]
            if any(map(begins_answer, new)):
                return True
            looked_at = len(exchange.pending)
            if exchange.done:
                raise NoAnswer("a stream without any choice")
            held += sum(map(len, new)) + _OF_AN_EVENT * len(new)
            if held > _MOST_BEFORE_A_CHOICE:
                raise BadChunk("no choice among a stream's first events")
            if self._watch.clock() >= due:  # `_begun` may always find another event
                raise self._late(exchange)
            if await self._begun(exchange, due) is Happened.BROKE:
                return False
        return False

    async def _begun(self, exchange: Exchange, due: float) -> Happened:
        while True:
            refused = exchange.status not in (0, 200)
            until = min(due, exchange.heard_at + _REFUSAL_S) if refused else due
            happened = await self._watch.event(exchange, until, begun=False)
            if happened is not None:
                return happened
            now = self._watch.clock()
            if refused and now >= exchange.heard_at + _REFUSAL_S:
                return Happened.WHOLE  # its text does not come
            if now >= due:
                raise self._late(exchange)

    def _late(self, exchange: Exchange) -> PlacementFailed:
        self.end(failed=True)
        waited_s = self._watch.clock() - exchange.began_at
        error = UpstreamTimeout(
            "The model did not begin to answer in time.",
            cause=f"{exchange.upstream}: no first token after {waited_s:.0f} s",
        )
        return PlacementFailed(error, cause=Cause.STALLED, may_retry=False)

    def _lost(self, exchange: Exchange, was_dead: bool) -> PlacementFailed:
        if isinstance(exchange.problem, TooLarge):
            self.end(failed=False)
            error = too_large(exchange.problem, upstream=exchange.upstream)
            return PlacementFailed(error, cause=None, may_retry=False)
        # A killed process ends its connections before its listener: what comes back at once is taken up, and reset.
        same_death = was_dead and not exchange.status
        self.end(failed=True, lost=not same_death)
        cause = Cause.REFUSED if same_death else Cause.LOST
        why = f"{exchange.upstream}: {exchange.problem or 'an answer without any event'}"
        error = _unreachable(why)
        if exchange.status:
            error = UpstreamError("The model's engine broke off before it answered.", cause=why)
        return PlacementFailed(error, cause=cause, may_retry=True)

    def _refused(self, exchange: Exchange, events: bool) -> PlacementFailed:
        status, body = exchange.status, exchange.body
        error = from_response(
            status, body, upstream=exchange.upstream, unserved=self._request.route.unserved, headers=exchange.headers
        )
        if names_dead_engine(status, body):
            # vLLM begins a stream with its 200 at once: what is refused instead had died before this request came.
            self.end(failed=True, lost=not events)
            return PlacementFailed(error, cause=Cause.REFUSED if events else Cause.ENGINE_ERROR, may_retry=True)
        self.end(failed=status >= 500)
        again = may_retry(status, body)
        transient = again or status in (404, 429)
        return PlacementFailed(error, cause=Cause.REFUSED if transient else None, may_retry=again)

    def _refused_late(self, exchange: Exchange, payload: bytes) -> PlacementFailed:
        """The engine refused after its 200: nothing was generated."""
        status = status_in(payload)
        dead = names_dead_engine(status, payload)
        self.end(failed=dead, lost=dead)
        error = from_error_object(payload, upstream=exchange.upstream)
        if dead:
            return PlacementFailed(error, cause=Cause.ENGINE_ERROR, may_retry=True)
        again = status in (502, 503)
        return PlacementFailed(error, cause=Cause.REFUSED if again else None, may_retry=again)

    def _read_whole(self, exchange: Exchange, *, events: bool, whole_will_do: bool) -> None:
        """Raises EngineReportedError, BadChunk, NoAnswer, PlacementFailed."""
        kind, encoded = media_type(exchange.headers), encoding(exchange.headers)
        try:
            if encoded:
                raise BadChunk("an answer that is compressed, though nobody asked for that")
            exchange.answer = whole_answer(exchange.body, holds=self._request.route.holds)
            if not whole_will_do:
                raise BadChunk("the whole answer in one piece")
        except BadChunk as problem:
            if whole_will_do and not encoded and kind in ("application/json", ""):
                raise
            what = (kind or "something") + (f" in {encoded}" if encoded else "")
            asked = "an event stream" if events else "JSON"
            error = UpstreamError(f"The model's engine answered with {what} where {asked} was asked for.")
            error.cause = f"{exchange.upstream}: {what}, {problem}"
            self.end(failed=True)
            raise PlacementFailed(error, cause=None, may_retry=False) from problem

    def _unusable(self, exchange: Exchange, problem: Exception, *, cause: Cause | None) -> PlacementFailed:
        self.end(failed=True)
        error = UpstreamError("The model's engine failed to answer.", cause=f"{exchange.upstream}: {problem}")
        return PlacementFailed(error, cause=cause, may_retry=cause is not None)


def _not_yet() -> bool:
    return False


def _unreachable(cause: str) -> UpstreamError:
    return UpstreamError("The model's engine could not be reached.", cause=cause)
