"""uvicorn's HTTP protocol, with our words for what is no HTTP, and a way beneath ASGI for streams.

Uses uvicorn's internals (transport, scope, the flow callbacks): its version is pinned, docs/adr/0004-relay.md says why.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import InvalidRequest
from ..record import RequestRecord

_HEAD = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
    b"connection: close\r\n\r\n%b"
)


class EnvelopeHttpProtocol(HttpToolsProtocol):
    """`watcher`: of the request that is being answered; it hears `lost`, `paused` and `resumed`."""

    watcher: Any = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"cloudach.connection": self}  # type: ignore[dict-item]

    @property
    def body_is_here(self) -> bool:
        return not self.cycle.more_body

    def write_chunk(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def abort(self) -> None:
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.watcher is not None:
            self.watcher.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.watcher is not None:
            self.watcher.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.watcher is not None:
            self.watcher.lost()

    def send_400_response(self, msg: str) -> None:
        body = InvalidRequest("The request is not valid HTTP.", code="invalid_http").body()
        self.transport.write(_HEAD % (len(body), RequestRecord(method="", path="").id.encode(), body))
        self.transport.close()
