"""One HTTP/1.1 connection to an engine, as an asyncio protocol: its bytes reach their receiver without a task.

With an HTTP client library, its reader, its task switches and its timeouts were two thirds of the cost of a relayed
chunk (docs/benchmarks.md). httptools parses.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, cast

import httptools

from .answer_headers import KEPT, Headers

_MOST_BESIDE_THE_BODY = 256 * 1024  # bytes; vLLM's heads have some hundred


class Receiver(Protocol):
    """Takes a response. None of these methods may raise."""

    def head(self, status: int, headers: Headers) -> None:
        """Takes the response's status and headers. Of the headers it gets only those that `KEPT` names."""

    def data(self, data: bytes) -> None:
        """Takes all body bytes of one read, without HTTP chunks around them."""

    def end(self) -> None:
        """The response is complete."""

    def lost(self, cause: str) -> None:
        """The connection ended before the response did."""


class Shortcut(asyncio.Protocol):
    """Takes a connection's place as long as it knows each read: whole HTTP chunks with running chunks of the stream.

    heard_at: when it last took a read, in the loop's time.
    """

    __slots__ = ("_connection", "heard_at")

    def begin(self, connection: Connection) -> None:
        self._connection = connection
        self.heard_at = 0.0

    def give_back(self, data: bytes) -> None:
        """Gives the stream back to the connection, from this data on."""
        self._connection.take_back(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)


def acknowledge_late(transport: asyncio.BaseTransport) -> None:
    """Lets the kernel (Linux) acknowledge every other token with a packet instead of each of them.

    This holds until an acknowledgement is late by the kernel's 40 ms. A sender that waits for acknowledgements (Nagle's
    algorithm) therefore waits once in a stream. Set again at each read, it would delay each of that sender's tokens.
    """
    raw = transport.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_QUICKACK"):
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        except OSError:  # it has just been closed
            pass


class Connection(asyncio.Protocol):
    """One HTTP connection to an engine. It carries one request at a time, and frees itself once a response is complete.

    A receiver may put a `Shortcut` into `offered` while its `data` runs. If that read ends between two HTTP chunks, the
    shortcut gets the next reads in the connection's place, and stands in `shortcut`. Otherwise the offer is dropped.
    """

    __slots__ = (
        "_beside",
        "_bodies",
        "_chunked",
        "_complete",
        "_framed",
        "_head_seen",
        "_headers",
        "_inside",
        "_on_free",
        "_on_gone",
        "_parser",
        "_pieces",
        "_receiver",
        "_reusable",
        "_transport",
        "idle_since",
        "made_at",
        "offered",
        "shortcut",
        "used",
    )

    def __init__(self, on_free: Callable[[Connection], None], on_gone: Callable[[Connection], None]) -> None:
        self.shortcut: Shortcut | None = None
        self.offered: Shortcut | None = None
        self._on_free = on_free  # is called when the response is complete and the connection may be used again
        self._on_gone = on_gone  # is called when it has closed, whoever closed it
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._bodies: list[bytes] = []
        self._complete = False
        self._pieces = 0  # how many of `_bodies` belong to the response, once it is complete
        self._reusable = False
        self._framed = False  # the response's headers say where it ends
        self._head_seen = False
        self._headers: dict[bytes, bytes] = {}
        self._beside = 0  # bytes that were read since the last bytes of the body
        self._chunked = False
        # The first is true within an HTTP chunk. The parser rotates it, which takes no Python frame.
        self._inside = deque((False, True))
        self.used = False  # an idle connection may have been closed by the engine just now
        self.idle_since = 0.0
        self.made_at = 0.0
        self._parser: Any = None  # until `connection_lost`, because parser and connection refer to each other

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def _sent(self) -> bool:
        """Tells that the whole request is out. An engine may refuse a request before it has read all of it."""
        return self._transport is not None and self._transport.get_write_buffer_size() == 0

    def send(self, request: bytes, receiver: Receiver) -> None:
        if self._transport is None:
            raise RuntimeError("not connected")
        self._receiver = receiver
        self._complete = self._framed = self._head_seen = self._chunked = False
        self._headers = {}
        self._beside = 0
        self.shortcut = self.offered = None
        self._transport.write(request)

    def abort(self) -> None:
        """Cuts the connection, so that the engine ends its work. The receiver hears no more."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def given_up(self) -> None:
        """Nobody waits any more until it is open. The loop closes it, perhaps without calling `connection_lost`."""
        self._transport = self._parser = None

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but not by inheritance
        # `list.append` is the callback, so that a piece of a body takes no Python frame.
        self._parser = httptools.HttpResponseParser(
            SimpleNamespace(
                on_message_begin=self._on_begin,
                on_header=self._on_header,
                on_headers_complete=self._on_head,
                on_body=self._bodies.append,
                on_chunk_header=self._inside.rotate,
                on_chunk_complete=self._inside.rotate,
                on_message_complete=self._on_complete,
            )
        )

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:  # no request is under way, so these bytes answer nothing
            self.abort()
            return
        broken: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            broken = error
            self._reusable = False
        bodies = self._bodies
        if self._complete:
            del bodies[self._pieces :]
        if bodies:
            body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
            bodies.clear()
            self._beside = 0
            receiver.data(body)
        elif not self._complete:
            self._beside += len(data)
            if self._beside > _MOST_BESIDE_THE_BODY and broken is None:
                broken = ValueError("a head or trailers without an end")
        if self._receiver is not receiver:  # the receiver has aborted
            return
        offered, self.offered = self.offered, None
        if self._complete:
            self._finished(receiver)
        elif broken is not None:
            self.abort()
            receiver.lost(f"not HTTP: {type(broken).__name__}: {str(broken)[:200]}")
        elif offered is not None and self._chunked and not self._inside[0] and data.endswith(b"\r\n"):
            self.shortcut = offered
            offered.begin(self)
            if self._transport is not None:
                acknowledge_late(self._transport)
                self._transport.set_protocol(offered)

    def take_back(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.set_protocol(self)
        self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_gone(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            pass
        elif exc is None and self._head_seen and not self._framed:
            receiver.end()
        else:
            receiver.lost(f"connection lost: {exc!r}" if exc else "connection closed")
        self._parser = self.shortcut = self.offered = None

    def _on_begin(self) -> None:
        if self._complete:  # a response that no request asked for
            self._reusable = False

    def _on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
            self._chunked = name == b"transfer-encoding" and value.lower() == b"chunked"
        elif name in KEPT and not self._head_seen:
            self._headers[name] = value

    def _on_head(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # informational; the answer comes later
            self._framed = self._chunked = False
            self._headers.clear()
            return
        self._head_seen = True
        if self._receiver is not None:
            self._receiver.head(status, self._headers)

    def _on_complete(self) -> None:
        if self._head_seen and not self._complete:
            self._complete = True
            self._pieces = len(self._bodies)
            self._reusable = self._parser.should_keep_alive()  # the parser knows only now

    def _finished(self, receiver: Receiver) -> None:
        self._receiver = None
        self.used = True
        if self._reusable and not self.closed and self._sent:
            self.resume_reading()  # the last response may have paused it
            self._on_free(self)
        else:
            self.abort()
        receiver.end()
        self.shortcut = None  # it refers to the client's connection and to the request's buffers
