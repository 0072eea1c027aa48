"""Listening to one engine's answer, from its first choice to [DONE] or to where it breaks off.

While an answer streams nothing runs here: the engine's bytes go through the consumer to the client in the callback
that read them, and this task sleeps until something happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..settings import Timeouts
from .continuation.plan import Continuation
from .engine.chunk import BadChunk, EngineReportedError, EngineShutsDown, NotReproducible, TooLarge
from .engine.exchange import Happened, Lane
from .engine.refusals import blames_request
from .placing.attempt import Attempt
from .placing.cause import Cause
from .placing.watch import Reader, Watch
from .stream.transcript import Transcript

_LOOK_S = 0.05  # how often an attempt in quarantine is looked at, because others wait for its progress


class Consumer(Protocol):
    """A consumer takes the engine's events, and makes the client's answer from them."""

    @property
    def lane(self) -> Lane | None: ...

    @property
    def transcript(self) -> Transcript: ...

    @property
    def ids_shown(self) -> bool:
        """True if the client sees token ids."""

    @property
    def takes_whole(self) -> bool:
        """True if an engine may give the whole answer in one piece, as JSON, instead of a stream."""

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


class Silence(Exception):
    """The engine said nothing for longer than it may between two tokens."""


class SlowReader(Exception):
    """The client took nothing for longer than it may."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An answer broke off. The problem is for the log."""

    problem: Exception | str
    cause: Cause


class Listener:
    """One for each request. It listens to one attempt after the other."""

    def __init__(self, watch: Watch, timeouts: Timeouts, reader: PacedReader | None) -> None:
        self._watch = watch
        self._between_s = timeouts.between_tokens_s
        self._patience_s = timeouts.slow_reader_s
        self._reader = reader
        self._attempt: Attempt | None = None

    async def listen(
        self,
        attempt: Attempt,
        consumer: Consumer,
        continuation: Continuation | None,
        progressed: Callable[[], bool],
    ) -> Broken | None:
        """Feeds the consumer until [DONE]. Raises SlowReader."""
        self._attempt = attempt
        try:
            await self._begin(attempt, consumer, continuation)
            problem = await self._until_it_ends(attempt, progressed)
        finally:
            self._attempt = None
        return None if problem is None else Broken(problem, _cause_of(problem))

    def flow_changed(self, paused: bool) -> None:
        """The client stops reading, or reads again. An engine's first events are waited for in any case."""
        if self._attempt is not None:
            if paused:
                self._attempt.pause()
            else:
                self._attempt.resume()
        if paused:  # from now on its time runs; the end of a pause makes nothing due sooner
            self._watch.look_again()

    async def _begin(self, attempt: Attempt, consumer: Consumer, continuation: Continuation | None) -> None:
        """Raises SlowReader."""
        exchange = attempt.exchange
        if self._paused_at is not None:
            exchange.pause()
            try:
                async with asyncio.timeout_at(self._paused_at + self._patience_s):
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

    async def _until_it_ends(self, attempt: Attempt, progressed: Callable[[], bool]) -> Exception | str | None:
        """None after [DONE], otherwise why the answer broke off. Raises SlowReader."""
        exchange, between_s, patience_s = attempt.exchange, self._between_s, self._patience_s
        while True:
            paused_at = self._paused_at
            due = exchange.heard_at + between_s if paused_at is None else paused_at + patience_s
            if attempt.in_quarantine:
                due = min(due, self._watch.clock() + _LOOK_S)
            happened = await self._watch.event(exchange, due)
            if attempt.in_quarantine and (progressed() or self._paused_at is not None):
                attempt.leave_quarantine()  # a slow client is nobody's reason to wait
            # What broke among the first events may have had its [DONE] posted before.
            if happened is Happened.BROKE or exchange.problem:
                return exchange.problem
            if happened is Happened.DONE:
                return None
            now = self._watch.clock()
            if paused_at is not None and self._paused_at == paused_at and now >= paused_at + patience_s:
                if self._reader is not None and self._reader.takes_nothing():
                    raise SlowReader
                continue
            if paused_at is None and self._paused_at is None and now >= exchange.heard_at + between_s:
                return Silence(f"no token for {between_s} s")

    @property
    def _paused_at(self) -> float | None:
        return None if self._reader is None else self._reader.paused_at


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


def _cause_of(problem: Exception | str) -> Cause:
    if isinstance(problem, NotReproducible):
        return Cause.DIFFERED
    if isinstance(problem, TooLarge):
        return Cause.TOO_LARGE
    if isinstance(problem, EngineShutsDown):
        return Cause.MIGRATED
    if isinstance(problem, EngineReportedError):
        return Cause.REQUEST_REFUSED if blames_request(problem.payload) else Cause.ENGINE_ERROR
    if isinstance(problem, BadChunk):
        return Cause.NO_ANSWER
    if isinstance(problem, Silence):
        return Cause.STALLED
    return Cause.LOST
