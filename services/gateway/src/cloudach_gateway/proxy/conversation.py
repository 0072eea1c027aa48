"""One request and its engines: placed, listened to, and placed anew when an engine breaks off.

While an answer streams nothing runs here: the engine's bytes go through the consumer to the client in the callback
that read them, and this task sleeps until something happens.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import GatewayError, ModelNotReady, UpstreamError, UpstreamTimeout
from ..settings import Failover, Timeouts
from .continuation.plan import CannotContinue, Continuation, detokenize_body, kind_of, plan
from .engine.chunk import SHAPE_ERRORS, BadChunk, EngineReportedError, EngineShutsDown, NotReproducible, TooLarge
from .engine.exchange import Exchange, Happened, Lane
from .engine.refusals import blames_request, too_large
from .placing.failover import PROGRESS, Cause, FailoverBudget, FailoverLimits, GiveUp, Verdict
from .placing.fleet import Engines
from .placing.placer import EngineRequest, PlacementFailed, Placer, PromptMeter
from .placing.watch import Reader, Watch
from .stream.transcript import Transcript

_FIRST_RETRY_S = 0.05
_LONGEST_RETRY_S = 1.0
_AGAIN_S = 5.0  # for a model that cannot be reached though it should be
_LOOK_S = 0.05  # how often one is looked at for whom others wait


class Consumer(Protocol):
    """What becomes of the engine's events."""

    @property
    def lane(self) -> Lane | None: ...

    @property
    def transcript(self) -> Transcript: ...

    @property
    def ids_shown(self) -> bool:
        """Whether the client sees token ids."""

    @property
    def takes_whole(self) -> bool:
        """Whether an engine may give the whole answer in one piece, as JSON, instead of a stream."""

    async def begin(self) -> None:
        """Before the first `feed`, and once more when an engine takes over."""

    def feed(self, payloads: list[bytes]) -> None:
        """Raises EngineReportedError, BadChunk."""

    def start_over(self) -> bool:
        """Forgets everything, so that the answer can begin anew; False when some of it has gone out already."""


class PacedReader(Reader, Protocol):
    """A client that may stop reading."""

    def on_news(self, flow_changed: Callable[[bool], None], gone: Callable[[], None]) -> None:
        """From now on `flow_changed(paused)` is called, and `gone` when the client has closed its connection."""


class Observer(Protocol):
    """Who wants to know of an engine's failures."""

    def retried(self, cause: str) -> None: ...

    def failed_over(self, cause: str, *, after_tokens: int, took_s: float) -> None: ...


class Silence(Exception):
    """The engine said nothing for longer than it may between two tokens."""


class SlowReader(Exception):
    """The client took nothing for longer than it may."""


class Conversation:
    """`await whole()` or `await stream(…)`, once; `close()` in any case."""

    def __init__(
        self,
        engines: Engines,
        timeouts: Timeouts,
        failover: Failover,
        request: EngineRequest,
        observer: Observer,
        meter: PromptMeter,
        *,
        reader: PacedReader | None = None,
    ) -> None:
        self._engines = engines
        self._timeouts = timeouts
        self._request = request
        self._observer = observer
        self._meter = meter
        self._reader = reader
        self._patience_s = failover.budget_s
        self._watch = Watch(timeouts, reader, spent_s=request.spent_s)
        self._placer = Placer(engines, timeouts, request, self._watch, meter)
        self._budget = FailoverBudget(FailoverLimits(failover.attempts, failover.budget_s, failover.spread_s))
        self._placed_at_count = 0  # tokens that were there when the present engine took over
        self._furthest = 0  # tokens of the longest answer that broke: one that began anew has to get beyond it
        self._listening = False  # beyond its first events
        if reader is not None:
            reader.on_news(self._flow_changed, self._client_gone)

    async def whole(self) -> dict[str, Any]:
        """The engine's whole answer. Raises GatewayError."""
        return (await self._place_first(events=False)).answer or {}

    async def stream(self, consumer: Consumer) -> dict[str, Any] | None:
        """Until the engine has said [DONE]; the answer itself, where it came in one piece to who takes that.

        Raises GatewayError, SlowReader.
        """
        self._placer.progressed = lambda: consumer.transcript.count - self._placed_at_count >= PROGRESS
        exchange = await self._place_first(events=True, whole_will_do=consumer.takes_whole)
        if exchange.answer is not None:
            return exchange.answer
        continuation: Continuation | None = None
        while True:
            problem = await self._listen(exchange, consumer, continuation)
            if problem is None:
                return None
            cause = _cause_of(problem)
            if isinstance(problem, NotReproducible) and (
                (continuation is not None and continuation.redrawn) or self._start_over(consumer)
            ):
                cause = Cause.REDRAWN
            taken_over = await self._go_on(exchange, problem, cause, consumer)
            if taken_over is None:
                return None
            exchange, continuation = taken_over

    def close(self) -> None:
        """Gives the connection back, or cuts it, which ends the engine's work, if the answer is not at its end."""
        self._placer.close()

    async def _listen(
        self, exchange: Exchange, consumer: Consumer, continuation: Continuation | None
    ) -> Exception | str | None:
        """Feeds the consumer until [DONE]: None then, otherwise why the stream broke."""
        between, patience = self._timeouts.between_tokens_s, self._timeouts.slow_reader_s
        self._listening = True
        if self._paused_at is not None:
            exchange.pause()
            try:
                async with asyncio.timeout_at(self._paused_at + patience):
                    await consumer.begin()
            except TimeoutError:
                raise SlowReader from None
        else:
            await consumer.begin()
        if continuation is None:
            exchange.sink, exchange.lane = consumer.feed, consumer.lane
        else:
            exchange.sink = _adapted(continuation, consumer, exchange.finish)
        pending, exchange.pending = exchange.pending, []
        exchange.deliver(pending)
        while True:
            paused_at = self._paused_at
            due = exchange.heard_at + between if paused_at is None else paused_at + patience
            if self._placer.apart:
                due = min(due, self._watch.clock() + _LOOK_S)
            happened = await self._watch.event(exchange, due)
            if self._placer.apart and (self._placer.progressed() or self._paused_at is not None):
                self._placer.rejoin()  # a slow client is nobody's reason to wait
            # What broke among the first events may have had its [DONE] posted before.
            if happened is Happened.BROKE or exchange.problem:
                return exchange.problem
            if happened is Happened.DONE:
                self._placer.end(failed=False)
                return None
            now = self._watch.clock()
            if paused_at is not None and self._paused_at == paused_at and now >= paused_at + patience:
                if self._reader is not None and self._reader.takes_nothing():
                    raise SlowReader
                continue
            if paused_at is None and self._paused_at is None and now >= exchange.heard_at + between:
                return Silence(f"no token for {between} s")

    @property
    def _paused_at(self) -> float | None:
        return None if self._reader is None else self._reader.paused_at

    def _flow_changed(self, paused: bool) -> None:
        exchange = self._placer.exchange
        if exchange is not None and self._listening:  # an engine's first events are waited for in any case
            if paused:
                exchange.pause()
            else:
                exchange.resume()
        if paused:  # from now on its time runs; the end of a pause makes nothing due sooner
            self._watch.look_again()

    def _client_gone(self) -> None:
        """At once: there is nowhere to write to."""
        exchange = self._placer.exchange
        if exchange is not None:
            exchange.close()

    async def _place_first(self, *, events: bool, whole_will_do: bool = False) -> Exchange:
        request, attempt, unsent, apart = self._request, 0, 0, False
        until = self._watch.clock() + request.patience_s
        while True:
            try:
                return await self._place(
                    request.path, request.body, events=events, whole_will_do=whole_will_do, apart=apart, until=until
                )
            except PlacementFailed as failed:
                if failed.unsent and request.model.resource is not None:
                    if self._watch.clock() >= until and unsent >= self._timeouts.retries:
                        raise _out_of_reach(request, failed) from failed
                    self._observer.retried(failed.error.cause or "")
                    await self._for_another(unsent, until)
                    unsent += 1
                    continue
                if not failed.may_retry or attempt >= self._timeouts.retries:
                    raise failed.error from failed
                if failed.cause is not None:
                    verdict = self._verdict(failed.cause, new_tokens=0)
                    if isinstance(verdict, GiveUp):
                        raise hopeless(failed.error, verdict) from failed
                    apart = verdict.must_be_alone
                self._observer.retried(failed.error.cause or "")
            # Many requests may have failed with this one: they should not come back together.
            await self._watch.sleep(_FIRST_RETRY_S * 2**attempt * random.uniform(0.5, 1.5))
            attempt += 1

    async def _for_another(self, failures: int, until: float) -> None:
        """Until the model has an upstream that this request has not been to, or it is time to try them once more."""
        pause_s = min(_FIRST_RETRY_S * 2.0 ** min(failures, 10), _LONGEST_RETRY_S) * random.uniform(0.5, 1.5)
        now = self._watch.clock()
        again_at = min(until, now + pause_s) if until > now else now + pause_s
        with self._engines.directory.telling(self._request.model, self._watch.look_again):
            await self._watch.holds(lambda: self._placer.untried, again_at)

    async def _place(
        self, path: str, body: bytes, *, events: bool, apart: bool, until: float, whole_will_do: bool = False
    ) -> Exchange:
        """Raises PlacementFailed, UpstreamTimeout."""
        alone_until = self._watch.clock() + self._patience_s if apart else None
        try:
            exchange = await self._placer.place(
                path, body, events=events, until=until, whole_will_do=whole_will_do, alone_until=alone_until
            )
        except PlacementFailed:
            self._meter.engine_lost()
            raise
        self._budget.placed(self._watch.clock())
        return exchange

    async def _go_on(
        self, broken: Exchange, problem: Exception | str, cause: Cause | None, consumer: Consumer
    ) -> tuple[Exchange, Continuation | None] | None:
        """Another engine's exchange from where the broken one ended; None when nothing is left to generate.

        cause: None when there is no use in it. Raises UpstreamError.
        """
        broke_at = self._watch.clock()
        told = f"{broken.upstream}: {problem}"
        self._listening = False
        self._meter.engine_lost()
        self._placer.end(failed=cause is not None, lost=cause is not None and cause.is_loss)
        if isinstance(problem, TooLarge):
            raise too_large(problem, upstream=broken.upstream)
        if cause is None or not self._request.failover:
            raise _broken_off(told)
        got_on = consumer.transcript.count - self._placed_at_count >= PROGRESS
        new_tokens = consumer.transcript.count - self._furthest
        self._furthest = max(self._furthest, consumer.transcript.count)
        continuation = await self._plan(consumer, told)
        path, body = self._request.path, self._request.body
        if continuation is not None:
            if continuation.body is None:
                if continuation.final is not None:
                    _feed_final(consumer, continuation.final, told)
                return None
            path, body = continuation.path, continuation.body
        self._placed_at_count = consumer.transcript.count
        together = self._placer.broke(broke_at)
        while True:
            verdict = self._verdict(cause, new_tokens=new_tokens, got_on=got_on, together=together)
            if isinstance(verdict, GiveUp):
                raise hopeless(_broken_off(told), verdict)
            await self._watch.sleep(verdict.delay_s)
            try:
                exchange = await self._place(
                    path, body, events=True, apart=verdict.must_be_alone, until=broke_at + self._patience_s
                )
            except PlacementFailed as failed:
                told = f"{told}; then {failed.error.cause}"[:2000]
                if failed.cause is None:
                    raise _broken_off(told) from failed
                cause, new_tokens, got_on = failed.cause, 0, False
            except UpstreamTimeout as late:
                raise _broken_off(f"{told}; then {late.cause}") from late
            else:
                if continuation is not None:
                    continuation.take_over()
                self._placed_at_count = consumer.transcript.count
                took_s = self._watch.clock() - broke_at
                self._observer.failed_over(told, after_tokens=self._placed_at_count, took_s=took_s)
                return exchange, continuation

    async def _plan(self, consumer: Consumer, told: str) -> Continuation | None:
        """None: the request as it was. Raises UpstreamError."""
        transcript = consumer.transcript
        if not transcript.recent:
            return None
        request, shown = self._request, consumer.ids_shown
        try:
            kind = kind_of(request.path)
            asked = detokenize_body(kind, request.fields, transcript, ids_shown=shown)
            text = None if asked is None else await self._engines.detokenized(request.model, asked)
            return plan(
                kind,
                request.fields,
                transcript,
                ids_shown=shown,
                max_model_len=await self._engines.context_lengths.of(self._engines.directory.current(request.model)),
                detokenized=text,
            )
        except CannotContinue as obstacle:
            if self._start_over(consumer):
                return None
            raise _broken_off(f"{told}; not continued: {obstacle.reason}") from obstacle
        except (BadChunk, EngineReportedError) as error:  # what went by unread cannot be read
            raise _broken_off(f"{told}; not continued: {error}") from error
        except SHAPE_ERRORS as error:
            raise _broken_off(f"{told}; not continued: {type(error).__name__}") from error

    def _start_over(self, consumer: Consumer) -> bool:
        count = consumer.transcript.count
        if not consumer.start_over():
            return False
        self._furthest = max(self._furthest, count)
        return True

    def _verdict(self, cause: Cause, *, new_tokens: int, got_on: bool = False, together: int | None = None) -> Verdict:
        """got_on: whether that engine had brought the request beyond its first steps."""
        alone = cause.is_loss and not got_on and self._placer.alone()
        now = self._watch.clock()
        return self._budget.broke(now, cause, new_tokens=new_tokens, alone=alone, together=together)


def _adapted(
    continuation: Continuation, consumer: Consumer, finish: Callable[[], None]
) -> Callable[[list[bytes]], None]:
    """finish: ends the engine's work once the answer is at its end."""
    adapt, lane = continuation.adapt, consumer.lane

    def feed(payloads: list[bytes]) -> None:
        for payload in payloads:
            adapted = adapt(payload)
            if adapted is not None:
                relayed = None if lane is None else lane.relay(b"data: %b\n\n" % adapted)
                if lane is None or relayed is None:
                    consumer.feed([adapted])
                elif relayed:
                    lane.write(relayed)
            if continuation.ended:
                finish()
                return

    return feed


def _cause_of(problem: Exception | str) -> Cause | None:
    """None: another engine would do no better."""
    if isinstance(problem, NotReproducible | TooLarge):
        return None
    if isinstance(problem, EngineShutsDown):
        return Cause.MIGRATED
    if isinstance(problem, EngineReportedError):
        return None if blames_request(problem.payload) else Cause.ENGINE_ERROR
    if isinstance(problem, BadChunk):
        return Cause.NO_ANSWER
    if isinstance(problem, Silence):
        return Cause.STALLED
    return Cause.LOST


def _feed_final(consumer: Consumer, final: bytes, told: str) -> None:
    try:
        consumer.feed([final])
    except (BadChunk, EngineReportedError) as error:
        raise _broken_off(f"{told}; not continued: {error}") from error


def _broken_off(cause: str) -> UpstreamError:
    return UpstreamError("The model's engine broke off its answer.", cause=cause)


def _out_of_reach(request: EngineRequest, failed: PlacementFailed) -> ModelNotReady:
    return ModelNotReady(
        f"The model `{request.model.id}` cannot be reached at the moment.",
        retry_after_s=_AGAIN_S,
        cause=f"{failed.error.cause}; waited {request.patience_s:g} s",
    )


def hopeless(error: GatewayError, verdict: GiveUp) -> GatewayError:
    """The error says in the log why no engine is tried any more, and in a header whether the client may try again."""
    error.cause = f"{error.cause}; given up: {verdict.reason}"
    if verdict.ends_engines:
        error.should_retry = False
    return error
