"""Writers between uvicorn's response and the transport.

One sends the head and the first bytes of the body in one system call. The other turns the response into a form that
HTTP/1.0 understands.
"""

from __future__ import annotations

from typing import Any

_CHUNKED = b"transfer-encoding: chunked\r\n"


def contents(chunks: bytes) -> bytes:
    """Takes the sizes off whole HTTP chunks."""
    parts, at = [], 0
    while at < len(chunks):
        begin = chunks.index(b"\r\n", at) + 2
        end = begin + int(chunks[at : begin - 2], 16)
        parts.append(chunks[begin:end])
        at = end + 2
    return b"".join(parts)


class HeadCork:
    """Keeps the head back until the first bytes of the body come. Call `flush` if none come, as after HEAD."""

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

    def flush(self) -> None:
        if self.head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())


class Unchunked:
    """A transport for a client of HTTP/1.0. It takes HTTP chunks and writes their content; the close ends the body.

    A response with a Content-Length passes unchanged.
    """

    __slots__ = ("_chunked", "_headed", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._headed = self._chunked = False

    def write(self, data: bytes) -> None:
        if not self._headed:
            self._headed = True
            head, _, data = data.partition(b"\r\n\r\n")
            self._chunked = _CHUNKED in head + b"\r\n"
            head = (head + b"\r\n").replace(_CHUNKED, b"", 1) if self._chunked else head + b"\r\n"
            data = head + b"\r\n" + (contents(data) if self._chunked else data)
        elif self._chunked:
            data = contents(data)
        if data:
            self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())
