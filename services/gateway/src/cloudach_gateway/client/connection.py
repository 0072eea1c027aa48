"""A client's connection beneath ASGI: what client/streaming_connection.py offers to those who stream."""

from __future__ import annotations

from typing import Any, Protocol

from ..proxy.stream.express import Framed

CONNECTION = "cloudach.connection"
"""The ASGI extension under which the server's protocol puts itself: client/streaming_connection.py."""


class ClientConnection(Protocol):
    """The server's side of a client's connection, beneath ASGI."""

    watcher: Any  # a Watcher, or None

    @property
    def body_is_here(self) -> bool:
        """Whether all of the request's body has come."""

    @property
    def closed(self) -> bool: ...

    @property
    def full(self) -> bool:
        """Whether it takes nothing at the moment."""

    @property
    def unsent(self) -> int:
        """Bytes that the client's side has not taken, those in the kernel's queue included."""

    def write_chunk(self, data: bytes) -> None:
        """One chunk of a response that ASGI's send has begun."""

    @property
    def framed(self) -> Framed:
        """Takes what `write_chunk` has made of its data, once that was called."""

    def abort(self) -> None: ...


class Watcher(Protocol):
    """Who is told by the connection. Called from the loop, never while the request's own code runs."""

    def lost(self) -> None: ...

    def paused(self) -> None: ...

    def resumed(self) -> None: ...
