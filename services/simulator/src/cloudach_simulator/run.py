"""A request on its way: it draws an answer's tokens at the asked pace and gives them to a connection."""

from __future__ import annotations

import asyncio
import math
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
    """One response on one connection. An adapter implements it; every call returns at once."""

    request_id: bytes
    """Told in the headers."""

    @property
    def writable(self) -> bool:
        """False while the peer does not take what was written."""

    def start(self, content_type: bytes) -> None:
        """Send a 200's headers; a body of unknown length follows."""

    def send(self, parts: Sequence[bytes]) -> None:
        """Send parts of the body."""

    def send_one(self, part: bytes) -> None:
        """Send one part of the body."""

    def finish(self) -> None:
        """End the body."""

    def reply(self, status: int, content_type: bytes, body: bytes, extra: Headers = ()) -> None:
        """Send a whole response."""

    def cut(self, *, reset: bool) -> None:
        """Drop the connection; with a reset, or as if the peer had gone."""

    def flushed(self) -> bool:
        """Whether everything was handed to the kernel."""


class Pace:
    """How fast one request runs."""

    __slots__ = ("burst", "chunk", "delay", "interval", "per_tick")

    def __init__(self, rate: float, delay: float, chunk: int, burst: int) -> None:
        self.delay = delay
        """Seconds to the first token."""
        self.chunk = chunk
        """Tokens a chunk."""
        self.burst = burst
        """Flat out: chunks a write."""
        # Timers are good to a millisecond: beyond some hundred tokens a second a tick brings several chunks.
        self.per_tick = max(1, math.ceil(_SHORTEST_TICK * rate / chunk))
        self.interval = self.per_tick * chunk / rate if rate else 0.0
        """Seconds between ticks; 0: flat out."""


class Run:
    """What streams and whole answers have in common: begin, tick, end. `ended` is told the outcome, once."""

    answer: Answer
    burst = 1
    """Flat out: steps at once."""

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
        self.held = False
        """Stalled on purpose: neither the clock nor a reader's progress moves it."""
        self._ticker = ticker
        self._ended = ended
        self._handle: asyncio.Handle | None = None

    def begin(self) -> None:
        """Start the prefill."""
        if self.pace.delay > 0:
            self._handle = self.loop.call_later(self.pace.delay, self._first)
        else:
            self._first()

    def abort(self) -> None:
        """The client has gone: stop at once."""
        self.end("aborted")

    def end(self, outcome: str) -> None:
        """Stop, whatever the reason."""
        if not self.done:
            self.rest()
            self.done = True
            self._ended(outcome)

    def rest(self) -> None:
        """Neither tick nor pump any more."""
        if self._ticker is not None:
            self._ticker.leave(self)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def stall(self, seconds: float | None) -> None:
        """Stand still; None: for ever."""
        self.rest()
        self.held = True
        if seconds is not None:
            self._handle = self.loop.call_later(seconds, self.wake)

    def wake(self) -> None:
        """The end of a stall."""
        self._handle = None
        self.held = False
        self.go_on()

    def go_on(self) -> None:
        """Tick, or pump, from here on."""
        if self.held:
            return
        if self._ticker is not None:
            self._ticker.join(self)
        elif self._handle is None:
            self._handle = self.loop.call_soon(self._pump)

    def _first(self) -> None:
        self._handle = None
        self.emit(1 if self._ticker is not None else self.burst)
        if not self.done:
            self.go_on()

    def _pump(self) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        """One step of the shared clock."""
        raise NotImplementedError

    def emit(self, chunks: int) -> None:
        """Generate and tell."""
        raise NotImplementedError

    def resume(self) -> None:
        """The peer reads again."""
        raise NotImplementedError

    def break_off(self) -> None:
        """The engine is dead: say so, and end."""
        raise NotImplementedError

    def shut_down(self) -> None:
        """The engine is told to end: what was generated is the answer, for it."""
        raise NotImplementedError


class StreamRun(Run):
    """A stream."""

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
        """The headers go out before the prefill."""
        self.sink.start(b"text/event-stream; charset=utf-8")
        super().begin()

    def tick(self) -> None:
        """One step; for a peer that does not read, the engine goes on and the chunk grows."""
        if self.sink.writable:
            # Most ticks bring one plain chunk: as little as possible is done for it.
            event = self.answer.one() if self._single else None
            if event is not None:
                self.sink.send_one(event)
            else:
                self.emit(self.pace.per_tick)
        elif not self.answer.finished:
            self.answer.skip(self.pace.chunk * self.pace.per_tick)

    def resume(self) -> None:
        """The peer reads again."""
        if self._ticker is None and not self.done:
            self.go_on()

    def _pump(self) -> None:
        self._handle = None
        if self.sink.writable:
            self.emit(self.burst)
            if not self.done and self.sink.writable:
                self.go_on()

    def emit(self, chunks: int) -> None:
        """Generate and send."""
        answer = self.answer
        self.sink.send(answer.events(chunks))
        if answer.complete:
            self.end("finished")
            self.sink.finish()

    def break_off(self) -> None:
        """The engine is dead: its error frame, [DONE] and the end."""
        self.end("failed")
        self.sink.send([errors.stream_frame(), DONE])
        self.sink.finish()

    def shut_down(self) -> None:
        """The finish reason `abort`, [DONE] and the end."""
        events = self.answer.aborted()
        self.end("failed")
        self.sink.send(events)
        self.sink.finish()


class WholeRun(Run):
    """An answer in one body, for which the generation takes the same time as a stream's."""

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
        """Nothing waits for the peer."""

    def tick(self) -> None:
        """One step."""
        self.emit(self.pace.chunk * self.pace.per_tick)

    def _pump(self) -> None:
        self._handle = None
        self.emit(self.burst)
        if not self.done:
            self.go_on()

    def emit(self, chunks: int) -> None:
        """Generate; at the end, send."""
        self.answer.advance(chunks)
        if self.answer.finished:
            self.tell()

    def break_off(self) -> None:
        """The engine is dead."""
        self.end("failed")
        refusal = errors.engine_dead()
        self.sink.reply(refusal.status, b"application/json", orjson.dumps(refusal.body))

    def shut_down(self) -> None:
        """What there is, with the finish reason `abort`."""
        self.answer.abort()
        body = self.answer.body()
        self.end("failed")
        self.sink.reply(200, b"application/json", body)

    def tell(self) -> None:
        """Send the body."""
        body = self.answer.body()
        self.answer.told = True
        self.end("finished")
        self.sink.reply(200, b"application/json", body)
