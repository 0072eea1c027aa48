"""The load client: HTTP/1.1 over bare protocols, as cheap as Python allows, so that it is not what is measured."""

from __future__ import annotations

import asyncio
import json
import re
import time
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, cast
from urllib.parse import urlsplit

import httptools

_CONTENT = re.compile(rb'"content":\s?"[^"]')
_BY_LENGTH = re.compile(rb'"finish_reason":\s?"length"')
_DONE = b"data: [DONE]\n\n"
_WHOLE_CHUNK = b"\n\n\r\n"
_TAIL = 2048
_PROMPT = "Tell me, in your own words and without haste, how the tide comes and goes at the coast of Brittany."


class BadAnswer(Exception):
    """A request did not succeed: this run's figures would be worth nothing."""


class Cut(Exception):
    """The client itself gave a request up: its time was over."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and as whom."""

    base_url: str
    """Without /v1."""
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.base_url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def request(self, *, max_tokens: int, stream: bool, **fields: object) -> bytes:
        """A chat completion of exactly that many tokens, as bytes on the wire; `fields` are added to its body."""
        body = json.dumps(
            {
                "model": self.model,
                "messages": [{"role": "user", "content": _PROMPT}],
                "max_tokens": max_tokens,
                "ignore_eos": True,
                "stream": stream,
                **fields,
            }
        ).encode()
        parts = urlsplit(self.base_url)
        lines = [f"POST {parts.path.rstrip('/')}/v1/chat/completions HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


@dataclass(slots=True)
class Answer:
    """One answer. Times are of `time.perf_counter`, in seconds."""

    stream: bool
    asked_at: float
    phase: int = 0
    """Which of the engine's clocks it ticks with."""
    first_content_at: float = 0.0
    status: int = 0
    events: int = 0
    """Events that it consisted of, [DONE] included; set at its end."""
    tail: bytes = b""

    @property
    def ttft_s(self) -> float:
        return self.first_content_at - self.asked_at

    def check(self) -> None:
        """Raises BadAnswer unless the answer is whole and of the length asked for."""
        problem = None
        if self.status != 200:
            problem = f"status {self.status}"
        elif b'{"error"' in self.tail:
            problem = "an error frame"
        elif self.stream and not self.tail.endswith(_DONE):
            problem = "a stream without [DONE]"
        elif not _BY_LENGTH.search(self.tail):
            problem = "an answer that is not as long as asked for"
        elif self.stream and not self.first_content_at:
            problem = "a stream without content"
        if problem:
            raise BadAnswer(f"{problem}; the answer's end: {self.tail[-600:].decode(errors='replace')}")


class Arrivals:
    """When the chunks of one window came, in seconds; one entry for each read."""

    def __init__(self) -> None:
        self.lags: array[float] = array("d")
        """After the same step of the engine, as the clock's witness got it."""
        self.gaps: array[float] = array("d")
        """After the read before, on the same stream."""


class Tally:
    """What the connections of one load count together."""

    def __init__(self, phases: int = 1) -> None:
        self.events = 0
        """Events received, [DONE] included."""
        self.answers = 0
        self.opened = 0
        """Streams that brought content."""
        self.ticks = [0.0] * phases
        """When the witness of each of the engine's clocks got its latest token."""
        self.arrivals: Arrivals | None = None
        """Filled while it is there."""


class _Connection(asyncio.Protocol):
    """One kept connection with at most one request on it."""

    def __init__(self, tally: Tally, witness: bool) -> None:
        self.closed = False
        self._tally = tally
        self._witness = witness
        self._bodies: list[bytes] = []
        self._waiter: asyncio.Future[Answer] | None = None
        self._answer = Answer(stream=False, asked_at=0.0)
        self._events = 0
        self._last_at = 0.0
        self._complete = False
        self._aligned = False
        self._unread: deque[bytes] = deque(maxlen=4)
        self.on_body = self._bodies.append
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self, request: bytes, *, stream: bool, phase: int) -> Answer:
        """Raises BadAnswer when the connection breaks or the bytes are no HTTP, Cut after `abort`."""
        self._complete = False
        self._waiter = asyncio.get_running_loop().create_future()
        self._answer = Answer(stream, time.perf_counter(), phase)
        self._events = 0
        self._transport.write(request)
        return await self._waiter

    def abort(self) -> None:
        self._fail(Cut())
        self.closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._fail(BadAnswer(f"the connection broke in mid-answer: {exc or 'a clean end'}"))

    def data_received(self, data: bytes) -> None:
        # A read that consists of whole HTTP chunks of whole events needs no parser: most reads of paced streams do.
        if self._aligned and data.endswith(_WHOLE_CHUNK):
            self._unread.append(data)
            self._count(data.count(b"\n\n"), time.perf_counter())
            return
        self._recall()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BadAnswer(f"no HTTP: {error}"))
            self.closed = True
            self._transport.close()
            return
        if self._bodies:
            body = self._bodies[0] if len(self._bodies) == 1 else b"".join(self._bodies)
            self._bodies.clear()
            self._took(body)
        self._aligned = bool(self._answer.first_content_at) and data.endswith(_WHOLE_CHUNK)
        if self._complete and self._waiter is not None and not self._waiter.done():
            self._aligned = False
            self._tally.answers += 1
            self._answer.events = self._events
            self._waiter.set_result(self._answer)

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        self._complete = True
        if not self._parser.should_keep_alive():
            self.closed = True

    def _took(self, body: bytes) -> None:
        now = time.perf_counter()
        answer = self._answer
        if answer.stream:
            # An event's end may fall between two reads.
            split = answer.tail[-1:] == b"\n" == body[:1]
            self._count(body.count(b"\n\n") + split, now)
            if not answer.first_content_at and _CONTENT.search(answer.tail + body):
                answer.first_content_at = now
                self._tally.opened += 1
        answer.tail = body[-_TAIL:] if len(body) >= _TAIL else (answer.tail + body)[-_TAIL:]

    def _count(self, events: int, now: float) -> None:
        tally = self._tally
        tally.events += events
        self._events += events
        if self._witness:
            tally.ticks[self._answer.phase] = now
        elif tally.arrivals is not None:
            tally.arrivals.lags.append(now - tally.ticks[self._answer.phase])
            tally.arrivals.gaps.append(now - self._last_at)
        self._last_at = now

    def _recall(self) -> None:
        """What the parser was spared becomes part of the tail, less the HTTP chunks' ends."""
        if self._unread:
            tail = b"".join([self._answer.tail, *(data[:-2] for data in self._unread)])
            self._answer.tail = tail[-_TAIL:]
            self._unread.clear()

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class Client:
    """Requests to one target over kept connections; each answer is checked. A witness tells the engine's ticks.

    Use it in `with`: at the end its connections go, and what runs on them.
    """

    def __init__(self, target: Target, tally: Tally, *, witness: bool = False) -> None:
        self.target = target
        self.tally = tally
        self._witness = witness
        self._all: list[_Connection] = []
        self._idle: list[_Connection] = []
        self._aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    async def ask(self, request: bytes, *, stream: bool, phase: int = 0) -> Answer:
        """Raises BadAnswer, or Cut after `abort`."""
        connection = await self._take()
        answer = await connection.ask(request, stream=stream, phase=phase)
        answer.check()
        if not connection.closed:
            self._idle.append(connection)
        return answer

    def abort(self) -> None:
        """Drops all connections and what runs on them."""
        self._aborted = True
        for connection in self._all:
            connection.abort()

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        if self._aborted:
            raise Cut
        host, port = self.target.address
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self.tally, self._witness), host, port
        )
        self._all.append(connection)
        if self._aborted:
            connection.abort()
            raise Cut
        return connection
