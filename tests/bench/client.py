"""The load client: HTTP/1.1 over bare protocols, as cheap as Python allows, so that it is not what is measured."""

from __future__ import annotations

import asyncio
import json
import re
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

_CONTENT = re.compile(rb'"content":\s?"[^"]')
_BY_LENGTH = re.compile(rb'"finish_reason":\s?"length"')
_DONE = b"data: [DONE]\n\n"
_TAIL = 2048
_PROMPT = "Tell me, in your own words and without haste, how the tide comes and goes at the coast of Brittany."


class BadAnswer(Exception):
    """A request did not succeed: the run's figures would be worth nothing."""


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
    first_content_at: float = 0.0
    status: int = 0
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


class Tally:
    """What the connections of one load count together."""

    def __init__(self) -> None:
        self.events = 0
        """Events received, [DONE] included."""
        self.answers = 0
        self.tick_at = 0.0
        """When the witness got the engine's latest token."""
        self.lags: array[float] | None = None
        """Seconds from `tick_at` to each later arrival, while it is a list."""


class _Connection(asyncio.Protocol):
    """One kept connection with at most one request on it."""

    def __init__(self, tally: Tally, on_arrival: Callable[[float], None] | None) -> None:
        self.closed = False
        self._tally = tally
        self._on_arrival = on_arrival
        self._bodies: list[bytes] = []
        self._waiter: asyncio.Future[Answer] | None = None
        self._answer = Answer(stream=False, asked_at=0.0)
        self._complete = False
        self.on_body = self._bodies.append
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self, request: bytes, *, stream: bool) -> Answer:
        """Raises BadAnswer when the connection breaks or the bytes are no HTTP."""
        self._complete = False
        self._waiter = asyncio.get_running_loop().create_future()
        self._answer = Answer(stream, time.perf_counter())
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        self.closed = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(BadAnswer(f"the connection broke in mid-answer: {exc or 'a clean end'}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(BadAnswer(f"no HTTP: {error}"))
            self.close()
            return
        if self._bodies:
            body = self._bodies[0] if len(self._bodies) == 1 else b"".join(self._bodies)
            self._bodies.clear()
            self._took(body)
        if self._complete and self._waiter is not None and not self._waiter.done():
            self._tally.answers += 1
            self._waiter.set_result(self._answer)

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        self._complete = True
        if not self._parser.should_keep_alive():
            self.closed = True

    def _took(self, body: bytes) -> None:
        now = time.perf_counter()
        answer, tally = self._answer, self._tally
        if answer.stream:
            tally.events += body.count(b"\n\n")
            if answer.tail[-1:] == b"\n" == body[:1]:  # an event's end that fell between two reads
                tally.events += 1
            if tally.lags is not None:
                tally.lags.append(now - tally.tick_at)
            if not answer.first_content_at and _CONTENT.search(answer.tail + body):
                answer.first_content_at = now
            if self._on_arrival is not None:
                self._on_arrival(now)
        answer.tail = body[-_TAIL:] if len(body) >= _TAIL else (answer.tail + body)[-_TAIL:]


class Client:
    """Requests to one target over kept connections; each answer is checked."""

    def __init__(self, target: Target, tally: Tally, on_arrival: Callable[[float], None] | None = None) -> None:
        self.target = target
        self.tally = tally
        self._on_arrival = on_arrival
        self._all: list[_Connection] = []
        self._idle: list[_Connection] = []

    async def ask(self, request: bytes, *, stream: bool) -> Answer:
        """Raises BadAnswer."""
        connection = await self._take()
        answer = await connection.ask(request, stream=stream)
        answer.check()
        if not connection.closed:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        host, port = self.target.address
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self.tally, self._on_arrival), host, port
        )
        self._all.append(connection)
        return connection
