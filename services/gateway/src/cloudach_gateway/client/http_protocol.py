"""uvicorn's HTTP protocol with bounds on all that a client may send: docs/adr/0015-what-a-client-may-send.md.

`head` checks a request's head, `door` bounds the number of connections, and `streaming_connection` is the way of
streams beneath ASGI.

The parser gets a head's bytes up to its end and no byte more, so that a request whose turn has not come stays unread.
`_MOST_AHEAD` requests wait. The rest are bytes in one buffer, or in the kernel.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import urllib.parse
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from .. import metrics
from ..errors import GatewayError, HeadTooLarge, Overloaded, RequestTimeout
from ..lifecycle import Lifecycle
from ..record import RequestRecord
from ..settings import Timeouts
from .deadline import Deadline
from .door import Door, Place
from .head import (
    CHUNKED,
    FRAMING,
    MOST_HEAD_BYTES,
    MOST_URL_BYTES,
    body_length,
    connect_refused,
    invalid_http,
    url_too_long,
)
from .streaming_connection import StreamingConnection

_log = logging.getLogger("cloudach.gateway")

_MOST_AHEAD = 4  # requests that wait behind the running one, each with little of its body
_END_OF_HEAD = b"\r\n\r\n"
_CHUNKS_AT_ONCE = 1024  # bytes of a chunked body that the parser gets at once, because only it finds the body's end
_LAST_WORDS_S = 2.0  # how long a refused client may go on sending before it is cut off, so that it reads the refusal
_REST_OF_BODY_S = 10.0  # how long the rest of a body may take whose request has been answered already


class _Awaited(enum.Enum):
    """The connection waits for one of these from its client."""

    NOTHING = 0
    REQUEST = 1
    HEAD = 2
    BODY = 3
    READING = 4


class _Stop(Exception):
    """Is raised in a callback of the parser to end its work. `_refusal` holds the error for the client."""


class EnvelopeHttpProtocol(StreamingConnection):
    """Reads requests from a client, hands them to the application one by one, and answers those that it refuses."""

    url = b""
    _place = Place.SERVED
    _awaited = _Awaited.NOTHING
    _refusal: GatewayError | None = None
    _refusal_sent = False
    # These belong to the request that is being read.
    _begun = False  # blank lines before it do not count
    _head_bytes = 0
    _tail = b""  # the last bytes of a head that has not ended, because its end may begin in them
    _in_body = False
    _left = 0  # bytes of the body, or CHUNKED
    _overhead = 0  # bytes of chunk sizes and trailers since the last content
    _upgrading = False
    _reprieved = False  # a request that came at the very end of its time has got more time, which it gets once
    # These bytes have been received and wait for their turn.
    _rest = b""
    _rest_at = 0
    _unsent = 0  # bytes that the client had not taken when they were last looked at

    def __init__(self, *arguments: Any, timeouts: Timeouts, door: Door, lifecycle: Lifecycle, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._timeouts = timeouts
        self._door = door
        self._lifecycle = lifecycle
        self._framing: list[tuple[bytes, bytes]] = []
        self._deadline = Deadline(self.loop, self._missed)

    # The connection.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._place = self._door.enter()
        if self._place is Place.NONE:
            self.abort()
            return
        self._awaited = _Awaited.REQUEST
        spare = self._place is Place.HEALTH_ONLY
        self._deadline.within(self._door.spare_head_s if spare else self._idle_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave()
        self._deadline.close()
        for cycle in (self.cycle, self._running):  # uvicorn tells only the last request that it has read
            if cycle is not None:
                if not cycle.response_complete:
                    cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)
        if self.watcher is not None:
            self.watcher.lost()
        # A request that still runs refers to this connection, so this connection lets go of the request.
        self.pipeline.clear()
        self.scope = self.headers = self.cycle = self._running = self._last = None  # type: ignore[assignment]
        self._framing = []
        self._rest = b""

    def eof_received(self) -> None:
        """Cuts the connection, because a client that sends no more has gone.

        uvicorn would first wait until the client had taken all that was written.
        """
        if self._running is not None and not self._running.response_complete:
            self.abort()

    # What comes in.

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if self._rest:
            self._rest, self._rest_at = self._rest[self._rest_at :] + data, 0
            return
        self._read(data, 0)
        self._update_deadline()

    def _read(self, data: bytes, at: int) -> None:
        """Feeds the parser until the data ends, or until the most requests wait."""
        size = len(data)
        while at < size and self._refusal is None and self.parser is not None:
            if self._in_body:
                end = min(size, at + (_CHUNKS_AT_ONCE if self._left == CHUNKED else self._left))
                self._overhead += end - at
                self._feed(data[at:end])
                if self._overhead > MOST_HEAD_BYTES and self._in_body and self._left == CHUNKED:
                    self._refuse(HeadTooLarge(f"The trailers are larger than {MOST_HEAD_BYTES} bytes."))
            elif not self._head_bytes and len(self.pipeline) >= _MOST_AHEAD:
                self._rest, self._rest_at = data, at
                self.flow.pause_reading()
                self.flow.held = True
                return
            else:
                end = min(self._end_of_head(data, at), at + MOST_HEAD_BYTES + 1 - self._head_bytes)
                self._head_bytes += end - at
                self._feed(data[at:end])
                if self._head_bytes and not self._in_body:  # the head has not ended
                    self._tail = (self._tail + data[max(at, end - 3) : end])[-3:]
                    self._bound_head()
            at = end

    def _end_of_head(self, data: bytes, at: int) -> int:
        if self._tail:
            across = (self._tail + data[at : at + 3]).find(_END_OF_HEAD)
            if across >= 0:
                return at + across + len(_END_OF_HEAD) - len(self._tail)
        found = data.find(_END_OF_HEAD, at)
        return len(data) if found < 0 else found + len(_END_OF_HEAD)

    def _bound_head(self) -> None:
        if len(self.url) > MOST_URL_BYTES:
            self._refuse(url_too_long())
        elif self._head_bytes > MOST_HEAD_BYTES:
            self._refuse(HeadTooLarge(f"The request's head is larger than {MOST_HEAD_BYTES} bytes."))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as paused:
            self._go_on_without_upgrade(data[paused.args[0] :])
        except httptools.HttpParserError as error:
            if self._refusal is None:
                refusal = invalid_http("The request is not valid HTTP.")
                refusal.cause = str(error.__context__ or error)
                self._refuse(refusal)
            else:
                self._refuse(self._refusal)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Ignores the client's wish to speak another protocol (RFC 9110, 7.8).

        The parser takes such a head for the end of all HTTP. So a new parser reads the head again, without the wish.
        """
        self._upgrading = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(connect_refused())
            return
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._feed(b"\r\n".join((*lines, b"", b"")))
        if rest and self._refusal is None:
            self._feed(rest)

    # What the parser finds.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        self._reprieved = False
        self._framing = []
        self.scope["extensions"] = {"cloudach.connection": self}  # type: ignore[dict-item]

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:  # a trailer, which must not pass for a header
            return
        name = name.lower()
        self.headers.append((name, value))
        if name in FRAMING:
            self._framing.append((name, value))
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        parser, scope = self.parser, self.scope
        if parser.should_upgrade():
            self._upgrading = True
            return
        version = parser.get_http_version()
        try:
            self._left = body_length(version, self.url, self._framing)
        except GatewayError as error:
            self._stop(error)
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        target = httptools.parse_url(self.url)
        raw_path: bytes = target.path or b"/"
        path = raw_path.decode("ascii")
        scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = target.query or b""
        spare = self._place is Place.HEALTH_ONLY
        if spare and scope["path"] not in self._door.health_paths:
            self._door.refused()
            self._stop(Overloaded("The server has too many connections.", retry_after_s=1.0))
        self._tail = b""
        self._in_body = True
        self._overhead = 0
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self._cork,  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue and version == "1.1",
            keep_alive=version == "1.1" and not spare and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self.cycle = cycle
        if self._lifecycle.draining:
            self._end_after(cycle)
        if self._busy or self.pipeline:
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._start_asgi_task(cycle, self.app)

    def on_body(self, body: bytes) -> None:
        if self._left != CHUNKED:
            self._left -= len(body)
        self._overhead = 0
        cycle = self.cycle
        if cycle.response_complete or cycle.disconnected:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_chunk_complete(self) -> None:
        self._overhead = 0

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._head_bytes = 0
        self._begun = self._in_body = False
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # Requests, one after the other.

    @property
    def _busy(self) -> bool:
        running = self._running
        return running is not None and not (running.response_complete or running.disconnected)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._cork.flush()
        if self.transport.is_closing():
            self._awaited = _Awaited.NOTHING
            if self.transport.get_write_buffer_size():
                self._client_took_some()
                self._deadline.within(self._timeouts.keep_alive_s)
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._send_refusal()
            return
        self.flow.held = False
        if self._rest:
            rest, self._rest = self._rest, b""
            self._read(rest, self._rest_at)
        self.flow.resume_reading()
        self._update_deadline()

    # What is refused before it becomes a request.

    def _stop(self, error: GatewayError) -> None:
        self._refusal = error.with_traceback(None)
        raise _Stop

    def _refuse(self, error: GatewayError) -> None:
        """Ends the connection with this answer, after the answers that are on their way."""
        self._refusal = error
        self._rest = b""
        cycle = self.cycle if self._in_body else None
        if cycle is not None and cycle is self._running:
            if cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        elif cycle is not None:
            self.pipeline.popleft()  # the request that came last
        if not self._busy and not self.pipeline:
            self._send_refusal()

    def _send_refusal(self) -> None:
        error = self._refusal
        if error is None or self._refusal_sent or self.closed:
            return
        self._refusal_sent = True
        request_id = RequestRecord(method="", path="").id
        metrics.REJECTIONS.labels(error.code).inc()
        peer = None if self.client is None else ":".join(map(str, self.client))
        said = {
            "peer": peer,
            "request_id": request_id,
            "status": error.status,
            "code": error.code,
            "cause": error.cause,
        }
        _log.warning("a client sent what is no valid HTTP request", extra=said)
        body = error.body()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            *error.retry_headers(),
            *error.headers,
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        if self.parser is not None and self.parser.get_method() == b"HEAD":
            body = b""
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[error.status], lines, body))
        # A close at once would reset a client that still sends, so that it would never read this.
        self.transport.write_eof()
        self.flow.held = False
        self.flow.resume_reading()
        self._awaited = _Awaited.NOTHING
        self._deadline.within(_LAST_WORDS_S)

    # What a client has to do, and until when.

    def _update_deadline(self) -> None:
        if self._busy:
            if self.full:
                if self._awaited is not _Awaited.READING:
                    self._client_took_some()
                self._await(_Awaited.READING, self._timeouts.slow_reader_s)
            elif self._awaited is not _Awaited.NOTHING:
                self._awaited = _Awaited.NOTHING
                self._deadline.lift()
        elif self._refusal is not None:
            pass
        elif self._in_body:
            self._await(_Awaited.BODY, _REST_OF_BODY_S)
        elif self._begun:
            spare = self._place is Place.HEALTH_ONLY
            self._await(_Awaited.HEAD, self._door.spare_head_s if spare else self._timeouts.head_s)
        else:
            if self.transport.get_write_buffer_size() and self._awaited is not _Awaited.REQUEST:
                self._client_took_some()
            self._await(_Awaited.REQUEST, self._idle_s)

    @property
    def _idle_s(self) -> float:
        """How long the connection may have no request."""
        return self._timeouts.parting_s if self._lifecycle.draining else self._timeouts.keep_alive_s

    def leave(self) -> None:
        """Is called once, when the drain begins."""
        if self._in_body or self._busy or self.pipeline:
            if self.cycle is not None:
                self._end_after(self.cycle)
        elif self._awaited is _Awaited.REQUEST:
            self._deadline.within(self._idle_s)

    def _await(self, what: _Awaited, seconds: float) -> None:
        """Sets the time for what the client has to do next. A client that sends it bit by bit gets no more time."""
        if what is not self._awaited:
            self._awaited = what
            self._deadline.within(seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._update_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._update_deadline()

    def _client_took_some(self) -> bool:
        """Returns whether the client has taken bytes since this was asked the last time."""
        before = self._unsent
        self._unsent = self.unsent
        return self._unsent < before

    def _missed(self) -> None:
        if self._awaited is _Awaited.READING or self.transport.get_write_buffer_size():
            if self._client_took_some() or (self._awaited is _Awaited.READING and self.watcher is not None):
                self._deadline.within(self._timeouts.slow_reader_s)  # a stream's watcher has its own deadline
            else:
                self.abort()  # a close would wait for the client
        elif self._awaited is _Awaited.HEAD and not self.closed:
            self._refuse(RequestTimeout(f"The request's head did not arrive within {self._timeouts.head_s:g} s."))
        elif self._awaited is _Awaited.REQUEST and not (self.closed or self._reprieved) and self.unread:
            self._reprieved = True
            self._deadline.within(self._timeouts.head_s)
        else:
            self.transport.close()
