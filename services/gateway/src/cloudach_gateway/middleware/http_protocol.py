"""uvicorn's HTTP protocol, with our words for what is no HTTP, and a way beneath ASGI for streams.

Uses uvicorn's internals (transport, scope, the flow callbacks): its version is pinned, docs/adr/0004-relay.md says why.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ..errors import InvalidRequest
from ..record import RequestRecord

_HEAD = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
    b"connection: close\r\n\r\n%b"
)
_NO_LINGERING = struct.pack("ii", 1, 0)
_MOST_AHEAD = 4  # requests that wait behind a running one, each with little of its body


class HeadCork:
    """What uvicorn's response writes to: the head waits for the first bytes of the body, one system call for both."""

    __slots__ = ("_transport", "head")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.head = b""

    def write(self, data: bytes) -> None:
        if self.head:
            data, self.head = self.head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self.head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        if self.head:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())


class EnvelopeHttpProtocol(HttpToolsProtocol):
    """`watcher`: of the request that is being answered; it hears `lost`, `paused` and `resumed`."""

    watcher: Any = None
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._cork = HeadCork(transport)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._cork  # type: ignore[assignment]
        if len(self.pipeline) <= _MOST_AHEAD:  # who does not read does not see the client go
            self.flow.resume_reading()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"cloudach.connection": self}  # type: ignore[dict-item]

    @property
    def body_is_here(self) -> bool:
        return not self.cycle.more_body

    @property
    def closed(self) -> bool:
        return self.transport.is_closing()

    @property
    def full(self) -> bool:
        return self.flow.write_paused

    @property
    def unsent(self) -> int:
        if self.closed:
            return 0
        queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(queued, sys.byteorder) + self.transport.get_write_buffer_size()

    def write_chunk(self, data: bytes) -> None:
        chunk = b"%x\r\n%b\r\n" % (len(data), data)
        if self._cork.head:
            self._cork.write(chunk)
        else:
            self.transport.write(chunk)

    @property
    def framed(self) -> Any:
        return self.transport

    def abort(self) -> None:
        """With a reset: the kernel would go on offering what it has to one that takes nothing."""
        if not self.closed:
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.watcher is not None:
            self.watcher.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.watcher is not None:
            self.watcher.resumed()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closing would wait for it
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def eof_received(self) -> None:
        """Who sends no more has gone; what is written would be waited for before anybody is told."""
        if self._running is not None and not self._running.response_complete:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._running is not None:  # uvicorn tells it to the last request it has read
            self._running.disconnected = True
            self._running.message_event.set()
        if self.watcher is not None:
            self.watcher.lost()

    def send_400_response(self, msg: str) -> None:
        body = InvalidRequest("The request is not valid HTTP.", code="invalid_http").body()
        self.transport.write(_HEAD % (len(body), RequestRecord(method="", path="").id.encode(), body))
        self.transport.close()
