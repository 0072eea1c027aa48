"""A conversation places a request at an engine, listens, and places it anew when the engine breaks off."""

from __future__ import annotations

import random
from typing import Any, Protocol

from ..errors import GatewayError, ModelNotReady, UpstreamError
from ..settings import Failover, Timeouts
from .continuation.plan import CannotContinue, Continuation, detokenize_body, kind_of, plan
from .engine.chunk import SHAPE_ERRORS, BadChunk, EngineReportedError, NotReproducible, TooLarge
from .engine.refusals import too_large
from .listening import Broken, Consumer, Listener, PacedReader
from .placing.attempt import Attempt, PromptMeter
from .placing.cause import Cause
from .placing.failover import PROGRESS, FailoverBudget, FailoverLimits, GiveUp, Verdict
from .placing.failures import PlacementFailed
from .placing.first_answer import Call
from .placing.fleet import Engines
from .placing.placer import EngineRequest, Placer
from .placing.placer import Observer as PlacerObserver
from .placing.watch import Watch

_FIRST_RETRY_S = 0.05
_LONGEST_RETRY_S = 1.0
_AGAIN_S = 5.0  # for a model that cannot be reached though it should be


class Observer(PlacerObserver, Protocol):
    """The request's record hears of each attempt, and of what follows a failed attempt."""

    def retried(self, cause: str) -> None:
        """Hears that another attempt is made before the first byte."""

    def failed_over(self, cause: str, *, after_tokens: int, took_s: float) -> None:
        """Hears that another engine goes on with an answer that broke off."""


class Conversation:
    """A conversation is one request over time, over several engines.

    Await `whole()` or `stream(…)`, once. Both end the engine's work, however they are left.
    """

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
        self._patience_s = failover.budget_s
        self._watch = Watch(timeouts, reader, spent_s=request.spent_s)
        self._placer = Placer(engines, timeouts, request, self._watch, meter, observer)
        self._listener = Listener(self._watch, timeouts, reader)
        self._budget = FailoverBudget(FailoverLimits(failover.attempts, failover.budget_s, failover.spread_s))
        self._consumer: Consumer | None = None
        self._placed_at_count = 0  # tokens that were there when the present engine took over
        self._furthest = 0  # tokens of the longest answer that broke: one that began anew has to get beyond it
        if reader is not None:
            reader.on_news(self._listener.flow_changed, self._client_gone)

    async def whole(self) -> dict[str, Any]:
        """Returns the engine's whole answer. Raises GatewayError."""
        request = self._request
        with self._placer:
            attempt = await self._place_first(Call(request.route, request.body, events=False))
            answer = attempt.exchange.answer or {}
            attempt.end(Cause.COMPLETED)
            return answer

    async def stream(self, consumer: Consumer) -> dict[str, Any] | None:
        """Feeds the consumer until the engine has said [DONE].

        Returns the answer where it came in one piece and the consumer takes that; otherwise None.

        Raises GatewayError, SlowReader.
        """
        self._consumer = consumer
        request = self._request
        continuation: Continuation | None = None
        with self._placer:
            call = Call(request.route, request.body, events=True, whole_will_do=consumer.takes_whole)
            attempt = await self._place_first(call)
            while True:
                answer = attempt.exchange.answer
                broken = None
                if answer is None:
                    broken = await self._listener.listen(attempt, consumer, continuation, self._has_progressed)
                if broken is None:
                    attempt.end(Cause.COMPLETED)
                    return answer
                cause = self._cause(broken, consumer, continuation)
                attempt.end(cause)
                taken_over = await self._go_on(attempt, broken.problem, cause, consumer)
                if taken_over is None:
                    return None
                attempt, continuation = taken_over

    def _cause(self, broken: Broken, consumer: Consumer, continuation: Continuation | None) -> Cause:
        if isinstance(broken.problem, NotReproducible) and (
            (continuation is not None and continuation.redrawn) or self._start_over(consumer)
        ):
            return Cause.REDRAWN
        return broken.cause

    def _client_gone(self) -> None:
        """Ends the engine's work at once, because the client has gone."""
        if self._placer.last is not None:
            self._placer.last.close_connection()

    def _has_progressed(self) -> bool:
        """Returns True if the present attempt has brought `PROGRESS` tokens, with which a request is no suspect."""
        return self._consumer is not None and self._consumer.transcript.count - self._placed_at_count >= PROGRESS

    async def _place_first(self, call: Call) -> Attempt:
        request, retries, unsent, apart = self._request, 0, 0, False
        until = self._watch.clock() + request.patience_s
        while True:
            try:
                return await self._place(call, apart=apart, until=until)
            except PlacementFailed as failed:
                if failed.unsent and request.model.resource is not None:
                    if self._watch.clock() >= until and unsent >= self._timeouts.retries:
                        raise _out_of_reach(request, failed) from failed
                    self._observer.retried(failed.error.cause or "")
                    await self._wait_for_another(unsent, until)
                    unsent += 1
                    continue
                if not failed.may_retry or retries >= self._timeouts.retries:
                    raise failed.error from failed
                verdict = self._verdict(failed.cause, new_tokens=0)
                if isinstance(verdict, GiveUp):
                    raise hopeless(failed.error, verdict) from failed
                apart = verdict.must_be_alone
                self._observer.retried(failed.error.cause or "")
            # Many requests may have failed with this one: they should not come back together.
            await self._placer.turn.pause(_FIRST_RETRY_S * 2**retries * random.uniform(0.5, 1.5))
            retries += 1

    async def _wait_for_another(self, failures: int, until: float) -> None:
        """Waits until the model has an upstream that this request has not tried, or until all may be tried once more.

        Raises GatewayError where it is in vain to wait for the model any longer.
        """
        pause_s = min(_FIRST_RETRY_S * 2.0 ** min(failures, 10), _LONGEST_RETRY_S) * random.uniform(0.5, 1.5)
        now = self._watch.clock()
        again_at = min(until, now + pause_s) if until > now else now + pause_s
        await self._placer.wait_for_untried(again_at)

    async def _place(self, call: Call, *, apart: bool, until: float) -> Attempt:
        """Returns an attempt whose engine has begun to answer. Raises PlacementFailed, GatewayError."""
        alone_until = self._watch.clock() + self._patience_s if apart else None
        attempt = await self._placer.place(call, until=until, alone_until=alone_until, progressed=self._has_progressed)
        self._budget.placed(self._watch.clock())
        return attempt

    async def _go_on(
        self, broken: Attempt, problem: Exception | str, cause: Cause, consumer: Consumer
    ) -> tuple[Attempt, Continuation | None] | None:
        """Makes an attempt at another engine, from where the broken attempt ended. Raises GatewayError.

        Returns the new attempt and its continuation, which is None after a restart. Returns None if nothing is left to
        generate.
        """
        broke_at = self._watch.clock()
        told = f"{broken.upstream}: {problem}"
        if isinstance(problem, TooLarge):
            raise too_large(problem, upstream=broken.upstream)
        if cause.is_final or not self._request.failover:
            raise _broken_off(told)
        got_on = self._has_progressed()
        new_tokens = consumer.transcript.count - self._furthest
        self._furthest = max(self._furthest, consumer.transcript.count)
        continuation = await self._plan(consumer, told)
        call = Call(self._request.route, self._request.body, events=True)
        if continuation is not None:
            if continuation.body is None:
                if continuation.final is not None:
                    _feed_final(consumer, continuation.final, told)
                return None
            call = Call(self._request.route._replace(path=continuation.path), continuation.body, events=True)
        self._placed_at_count = consumer.transcript.count
        together = broken.count_break(broke_at)
        while True:
            verdict = self._verdict(cause, new_tokens=new_tokens, got_on=got_on, together=together)
            if isinstance(verdict, GiveUp):
                raise hopeless(_broken_off(told), verdict)
            await self._placer.turn.pause(verdict.delay_s)
            try:
                attempt = await self._place(call, apart=verdict.must_be_alone, until=broke_at + self._patience_s)
            except PlacementFailed as failed:
                told = f"{told}; then {failed.error.cause}"[:2000]
                cause, new_tokens, got_on = failed.cause, 0, False
            except GatewayError as error:
                raise _broken_off(f"{told}; then {error.cause or error.message}") from error
            else:
                if continuation is not None:
                    continuation.take_over()
                self._placed_at_count = consumer.transcript.count
                took_s = self._watch.clock() - broke_at
                self._observer.failed_over(told, after_tokens=self._placed_at_count, took_s=took_s)
                return attempt, continuation

    async def _plan(self, consumer: Consumer, told: str) -> Continuation | None:
        """Returns how the answer goes on; None if the request is sent again as it was. Raises UpstreamError."""
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
        """Decides on another attempt. `got_on` is True if the lost engine had brought `PROGRESS` tokens."""
        last = self._placer.last
        alone = cause.is_loss and not got_on and last is not None and last.was_only_suspect()
        now = self._watch.clock()
        return self._budget.broke(now, cause, new_tokens=new_tokens, alone=alone, together=together)


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
    """Returns the error with the reason for giving up. After a request that ends engines, a retry is discouraged."""
    error.cause = f"{error.cause}; given up: {verdict.reason}"
    if verdict.ends_engines:
        error.should_retry = False
    return error
