"""A running request. It takes an answer's tokens at the asked pace and gives them to a connection."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import orjson

from . import errors
from .answer import Answer, StreamAnswer, WholeAnswer
from .pacer import Ticker
from .wire import DONE

_SHORTEST_TICK = 0.002


Headers = Sequence[tuple[bytes, bytes]]


class Sink(Protocol):
    """One response on one connection. Adapters implement it. Every call returns at once."""

    request_id: bytes
    """The request id in the headers."""

    @property
    def writable(self) -> bool:
        """False while the peer does not take what was written."""

    def start(self, content_type: bytes) -> None:
        """Sends a 200 and its headers. A body of unknown length follows."""

    def send(self, parts: Sequence[bytes]) -> None:
        """Sends parts of the body."""

    def send_one(self, part: bytes) -> None:
        """Sends one part of the body."""

    def finish(self) -> None:
        """Ends the body."""

    def reply(self, status: int, content_type: bytes, body: bytes, extra: Headers = ()) -> None:
        """Sends a whole response."""

    def cut(self, *, reset: bool) -> None:
        """Drops the connection with a reset, or with a close."""

    def flushed(self) -> bool:
        """Returns whether the kernel has taken everything that was sent. It does not wait."""


class Pace:
    """The pace of one request."""

    __slots__ = ("burst", "chunk", "delay", "interval", "per_tick")

    def __init__(self, rate: float, delay: float, chunk: int, burst: int) -> None:
        self.delay = delay
        """Seconds to the first token."""
        self.chunk = chunk
        """Tokens per chunk."""
        self.burst = burst
        """Chunks per write, where there is no rate."""
        # Timers are precise to a millisecond, so above some hundred tokens per second a tick brings several chunks.
        self.per_tick = max(1, math.ceil(_SHORTEST_TICK * rate / chunk))
        self.interval = self.per_tick * chunk / rate if rate else 0.0
        """Seconds between ticks. 0: as fast as the reader takes them."""


class Run:
    """The common part of streams and whole answers: begin, tick, end. `ended` is called once, with the outcome."""

    answer: Answer
    burst = 1
    """Steps at once, where there is no rate."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sink: Sink,
        pace: Pace,
        ticker: Ticker | None,
        ended: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.sink = sink
        self.pace = pace
        self.done = False
        self.first_at: float | None = None
        """When it began to generate, in seconds since 1970."""
        self.died = False
        """It ended because its engine died, so nobody tells of it."""
        self.held = False
        """It is stalled on purpose: neither the clock nor the reader moves it."""
        self._ticker = ticker
        self._ended = ended
        self._handle: asyncio.Handle | None = None

    def begin(self) -> None:
        """Starts the prefill."""
        if self.pace.delay > 0:
            self._handle = self.loop.call_later(self.pace.delay, self._first)
        else:
            self._first()

    def abort(self) -> None:
        """Stops at once, because the client has gone."""
        self.end("aborted")

    def end(self, outcome: str) -> None:
        """Stops, whatever the reason."""
        if not self.done:
            self.rest()
            self.done = True
            self._ended(outcome)

    def rest(self) -> None:
        """Stops the ticks and the writes."""
        if self._ticker is not None:
            self._ticker.leave(self)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def stall(self, seconds: float | None) -> None:
        """Stands still for this long. None: for ever."""
        self.rest()
        self.held = True
        if seconds is not None:
            self._handle = self.loop.call_later(seconds, self.wake)

    def wake(self) -> None:
        """Ends a stall."""
        self._handle = None
        self.held = False
        self.go_on()

    def go_on(self) -> None:
        """Ticks, or writes as fast as it can, from here on."""
        if self.held:
            return
        if self._ticker is not None:
            self._ticker.join(self)
        elif self._handle is None:
            self._handle = self.loop.call_soon(self._pump)

    def _first(self) -> None:
        self._handle = None
        self.first_at = time.time()
        self.emit(1 if self._ticker is not None else self.burst)
        if not self.done:
            self.go_on()

    def _pump(self) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        """Makes one step of the shared clock."""
        raise NotImplementedError

    def emit(self, chunks: int) -> None:
        """Generates and sends."""
        raise NotImplementedError

    def resume(self) -> None:
        """Goes on, because the peer reads again."""
        raise NotImplementedError

    def break_off(self) -> None:
        """Ends with the engine's error, because the engine is dead."""
        raise NotImplementedError

    def shut_down(self) -> None:
        """Ends the answer here, because the engine is told to end."""
        raise NotImplementedError


class StreamRun(Run):
    """A streamed answer."""

    answer: StreamAnswer

    def __init__(
        self,
        answer: StreamAnswer,
        loop: asyncio.AbstractEventLoop,
        sink: Sink,
        pace: Pace,
        ticker: Ticker | None,
        ended: Callable[[str], None],
    ) -> None:
        super().__init__(loop, sink, pace, ticker, ended)
        self.answer = answer
        self.burst = pace.burst
        self._single = pace.per_tick == 1

    def begin(self) -> None:
        """Sends the headers before the prefill."""
        self.sink.start(b"text/event-stream; charset=utf-8")
        super().begin()

    def tick(self) -> None:
        """Makes one step. For a peer that does not read, the engine goes on and the chunk grows."""
        if self.sink.writable:
            # Most ticks bring one plain chunk, so this does as little as possible for it.
            event = self.answer.one() if self._single else None
            if event is not None:
                self.sink.send_one(event)
            else:
                self.emit(self.pace.per_tick)
        elif not self.answer.finished:
            self.answer.skip(self.pace.chunk * self.pace.per_tick)

    def resume(self) -> None:
        """Goes on, because the peer reads again."""
        if self._ticker is None and not self.done:
            self.go_on()

    def _pump(self) -> None:
        self._handle = None
        if self.sink.writable:
            self.emit(self.burst)
            if not self.done and self.sink.writable:
                self.go_on()

    def emit(self, chunks: int) -> None:
        """Generates and sends."""
        answer = self.answer
        self.sink.send(answer.events(chunks))
        if answer.complete:
            self.end("finished")
            self.sink.finish()

    def break_off(self) -> None:
        """Sends the error frame of a dead engine, [DONE] and the end."""
        self.died = True
        self.end("failed")
        self.sink.send([errors.stream_frame(), DONE])
        self.sink.finish()

    def shut_down(self) -> None:
        """Sends the finish reason `abort`, [DONE] and the end."""
        events = self.answer.aborted()
        self.end("failed")
        self.sink.send(events)
        self.sink.finish()


class WholeRun(Run):
    """An answer in one body. Its generation takes as long as a stream's."""

    answer: WholeAnswer
    burst = 2048

    def __init__(
        self,
        answer: WholeAnswer,
        loop: asyncio.AbstractEventLoop,
        sink: Sink,
        pace: Pace,
        ticker: Ticker | None,
        ended: Callable[[str], None],
    ) -> None:
        super().__init__(loop, sink, pace, ticker, ended)
        self.answer = answer

    def resume(self) -> None:
        """Does nothing, because nothing waits for the peer."""

    def tick(self) -> None:
        """Makes one step."""
        self.emit(self.pace.chunk * self.pace.per_tick)

    def _pump(self) -> None:
        self._handle = None
        self.emit(self.burst)
        if not self.done:
            self.go_on()

    def emit(self, chunks: int) -> None:
        """Generates, and sends the body at the end."""
        self.answer.advance(chunks)
        if self.answer.finished:
            self.tell()

    def break_off(self) -> None:
        """Sends the error of a dead engine."""
        self.died = True
        self.end("failed")
        refusal = errors.engine_dead()
        self.sink.reply(refusal.status, b"application/json", orjson.dumps(refusal.body))

    def shut_down(self) -> None:
        """Sends the answer so far, with the finish reason `abort`."""
        self.answer.abort()
        body = self.answer.body()
        self.end("failed")
        self.sink.reply(200, b"application/json", body)

    def tell(self) -> None:
        """Sends the body."""
        body = self.answer.body()
        self.answer.told = True
        self.end("finished")
        self.sink.reply(200, b"application/json", body)
