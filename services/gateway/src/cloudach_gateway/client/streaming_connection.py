"""A client's connection as streams use it, beneath ASGI. `connection` is the interface that they see.

It uses uvicorn's internals (transport, flow, cycle), so uvicorn's version is pinned:
docs/adr/0004-relay-beneath-asgi.md.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .response_writers import HeadCork, Unchunked

_NO_LINGERING = struct.pack("ii", 1, 0)


class HoldableFlow(FlowControl):
    """Flow control that can be held. held: nothing is read, whoever resumes reading."""

    held = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.held:
            self.read_paused = False
            self._transport.resume_reading()


class StreamingConnection(HttpToolsProtocol):
    """watcher: belongs to the request that is being answered, and hears `lost`, `paused` and `resumed`."""

    watcher: Any = None
    flow: HoldableFlow
    _running: RequestResponseCycle | None = None
    _aborted = False
    _last: RequestResponseCycle | None = None  # in a drain, the request whose answer says that the connection ends

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = HoldableFlow(transport)
        self._cork = HeadCork(transport)
        self._out: Any = transport

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        if cycle.scope["http_version"] == "1.0":  # the last request on its connection
            self._out = Unchunked(self.transport)
            self._cork = HeadCork(self._out)
            cycle.transport = self._cork  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def _end_after(self, cycle: RequestResponseCycle) -> None:
        """Has the answer to this request carry `Connection: close`, and no answer before it.

        So a client that has sent several requests gets all of its answers.
        """
        if self._last is not None and not self._last.response_started:
            self._last.keep_alive = True
        if cycle.keep_alive and not cycle.response_started:
            self._last, cycle.keep_alive = cycle, False

    @property
    def unread(self) -> bool:
        """Returns whether the kernel holds bytes from the client that have not been read."""
        waiting = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
        return any(waiting)

    @property
    def body_is_here(self) -> bool:
        return self._running is None or not self._running.more_body

    @property
    def closed(self) -> bool:
        return self.transport.is_closing()

    @property
    def full(self) -> bool:
        return self.flow.write_paused

    @property
    def unsent(self) -> int:
        """How many bytes the client has not taken. A connection that is closing still delivers what was written."""
        if self.closed and (self._aborted or not self.transport.get_write_buffer_size()):
            return 0
        try:
            queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # the client has just reset it
            return 0
        return int.from_bytes(queued, sys.byteorder) + self.transport.get_write_buffer_size()

    def write_chunk(self, data: bytes) -> None:
        chunk = b"%x\r\n%b\r\n" % (len(data), data)
        if self._cork.head:
            self._cork.write(chunk)
        else:
            self._out.write(chunk)

    @property
    def framed(self) -> Any:
        return self._out

    def abort(self) -> None:
        """Resets the connection. Otherwise the kernel would go on offering bytes to a client that takes nothing."""
        if not self.closed:
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self._aborted = True
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.watcher is not None:
            self.watcher.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.watcher is not None:
            self.watcher.resumed()
