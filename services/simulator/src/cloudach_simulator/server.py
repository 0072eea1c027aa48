"""The simulator as a process of its own: a hand-written HTTP/1.1 protocol that costs as little as possible.

It is the engine of benchmarks, so a chunk costs one join and one write, and no task or queue.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from typing import cast

import httptools

from .app import Simulator
from .run import Headers, Run

_SIZES = tuple(b"%x\r\n" % size for size in range(4096))
_END = b"0\r\n\r\n"
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_LINGER_OFF = struct.pack("ii", 1, 0)


class _Clock:
    """Returns the headers that all responses share. They are made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def common(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            stamp = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode()
            self._line = b"date: " + stamp + b"\r\nserver: uvicorn\r\n"
        return self._line


_clock = _Clock()


class Response:
    """A response on a connection. After the connection's end it writes nothing."""

    __slots__ = ("_chunked", "_connection", "_head_only", "request_id", "writable")

    def __init__(self, connection: Connection, chunked: bool, head_only: bool) -> None:
        self._connection: Connection | None = connection
        self._chunked = chunked
        self._head_only = head_only
        self.writable = connection.writable
        self.request_id = b""

    def start(self, content_type: bytes) -> None:
        """Sends a 200 and its headers."""
        if self._connection is not None:
            framing = b"transfer-encoding: chunked\r\n" if self._chunked else b"connection: close\r\n"
            self._connection.write(
                b"HTTP/1.1 200 OK\r\n%bcontent-type: %b\r\nvary: Origin\r\nx-request-id: %b\r\n%b\r\n"
                % (_clock.common(), content_type, self.request_id, framing)
            )

    def send(self, parts: Sequence[bytes]) -> None:
        """Sends parts of the body in one write, each as an HTTP chunk of its own, as vLLM's server does."""
        connection = self._connection
        if connection is None or not parts:
            return
        if not self._chunked:
            connection.write(b"".join(parts))
        elif len(parts) == 1:
            self.send_one(parts[0])
        else:
            framed = []
            for part in parts:
                size = len(part)
                framed.append(_SIZES[size] if size < 4096 else b"%x\r\n" % size)
                framed.append(part)
                framed.append(b"\r\n")
            connection.write(b"".join(framed))

    def send_one(self, part: bytes) -> None:
        """Sends one part of the body."""
        connection = self._connection
        if connection is not None:
            if self._chunked:
                size = len(part)
                part = (_SIZES[size] if size < 4096 else b"%x\r\n" % size) + part + b"\r\n"
            connection.write(part)

    def finish(self) -> None:
        """Ends the body."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._chunked:
                connection.write(_END)
            connection.finished(keep=self._chunked)

    def reply(self, status: int, content_type: bytes, body: bytes, extra: Headers = ()) -> None:
        """Sends a whole response."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        kind = b"content-type: " + content_type + b"\r\n" if content_type else b""
        more = b"".join(b"%b: %b\r\n" % header for header in extra)
        close = b"" if connection.keep else b"connection: close\r\n"
        connection.write(
            b"HTTP/1.1 %d %b\r\n%b%bcontent-length: %d\r\n%bvary: Origin\r\nx-request-id: %b\r\n%b\r\n%b"
            % (
                status,
                _REASONS.get(status, b"Unknown"),
                _clock.common(),
                more,
                len(body),
                kind,
                self.request_id,
                close,
                b"" if self._head_only else body,
            )
        )
        connection.finished(keep=True)

    def cut(self, *, reset: bool) -> None:
        """Drops the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop(reset=reset)

    def flushed(self) -> bool:
        """Tells that the kernel has everything."""
        return self._connection is None or self._connection.flushed()

    def detach(self) -> None:
        """Notes that the connection is gone."""
        self._connection = None


class Connection(asyncio.Protocol):
    """One client connection. It answers its requests one by one."""

    def __init__(self, simulator: Simulator, connections: set[Connection]) -> None:
        self._simulator = simulator
        self._connections = connections
        self._waiting: deque[tuple[str, str, dict[bytes, bytes], bytes, bool, bool]] = deque()
        self._response: Response | None = None
        self._run: Run | None = None
        self.writable = True
        self.keep = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._parser = httptools.HttpRequestParser(self)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops all that runs for the client, because it has gone."""
        self._connections.discard(self)
        self._waiting.clear()
        if self._response is not None:
            self._response.detach()
        if self._run is not None:
            self._run.abort()
            self._run = None

    def data_received(self, data: bytes) -> None:
        """Parses the client's bytes."""
        try:
            while data:
                try:
                    self._parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as paused:
                    data = self._without_upgrade(data[paused.args[0] :])
        except httptools.HttpParserError:
            self.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"connection: close\r\n\r\nInvalid HTTP request received."
            )
            self._transport.close()

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Reads the head again without the wish to upgrade, because the parser takes such a head for the end of all
        HTTP."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._transport.close()
            return b""
        lines = [b"%b %b HTTP/%b" % (method, self._target, self._parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self._headers.items() if header[0] != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        return b"\r\n".join((*lines, b"", rest))

    def pause_writing(self) -> None:
        """Notes that the client does not keep up."""
        self.writable = False
        if self._response is not None:
            self._response.writable = False

    def resume_writing(self) -> None:
        """Notes that the client keeps up again."""
        self.writable = True
        if self._response is not None:
            self._response.writable = True
        if self._run is not None:
            self._run.resume()

    # The parser calls these.

    def on_message_begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and not self._parser.should_upgrade():
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= self._simulator.config.max_body:
            self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade():
            return
        modern = parser.get_http_version() == "1.1"
        item = (
            parser.get_method().decode(),
            self._target.decode("latin-1"),
            self._headers,
            b"".join(self._body),
            modern,
            parser.should_keep_alive(),
        )
        if self._response is not None:
            self._waiting.append(item)
        else:
            self._handle(*item)

    # These belong to one request.

    def _handle(
        self, method: str, target: str, headers: dict[bytes, bytes], body: bytes, modern: bool, keep: bool
    ) -> None:
        self.keep = keep
        response = Response(self, modern, method == "HEAD")
        self._response = response
        if self._size > self._simulator.config.max_body:
            self.keep = False
            response.reply(413, b"application/json", b'{"detail":"Request Entity Too Large"}')
            return
        run = self._simulator.handle(method, target, headers, body, response)
        if self._response is response:
            self._run = run
            if run is not None and run.done:
                self._run = None

    def finished(self, *, keep: bool) -> None:
        """Goes on to the next request, because the response is written."""
        self._response = None
        self._run = None
        if not (keep and self.keep):
            self._transport.close()
        elif self._waiting:
            self._simulator.loop.call_soon(self._next)

    def _next(self) -> None:
        if self._waiting and self._response is None:
            self._handle(*self._waiting.popleft())

    def flushed(self) -> bool:
        """Tells that the kernel has everything."""
        return self._transport.is_closing() or self._transport.get_write_buffer_size() == 0

    def drop(self, *, reset: bool, patience: float = 1.0) -> None:
        """Cuts the connection once what was written has left."""
        if not self.flushed() and patience > 0:
            loop = self._simulator.loop
            loop.call_later(0.002, lambda: self.drop(reset=reset, patience=patience - 0.002))
            return
        if reset:
            raw = self._transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
            self._transport.abort()
        else:
            self._transport.close()


async def serve(simulator: Simulator, host: str, port: int) -> tuple[asyncio.Server, int]:
    """Listens. Returns the server and its port."""
    connections: set[Connection] = set()
    server = await simulator.loop.create_server(
        lambda: Connection(simulator, connections), host, port, backlog=4096, reuse_address=True
    )
    return server, server.sockets[0].getsockname()[1]
