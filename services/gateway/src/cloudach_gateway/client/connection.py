"""The interface of a client's connection beneath ASGI. `streaming_connection` implements it, `sink` uses it."""

from __future__ import annotations

from typing import Any, Protocol

from ..proxy.stream.express import Framed

CONNECTION = "cloudach.connection"
"""The ASGI extension under which the server's protocol (`streaming_connection`) puts itself."""


class ClientConnection(Protocol):
    """The server's side of a client's connection, beneath ASGI."""

    watcher: Any  # a Watcher or None

    @property
    def body_is_here(self) -> bool:
        """Tells that the request's whole body has come."""

    @property
    def closed(self) -> bool: ...

    @property
    def full(self) -> bool:
        """Tells that the client takes nothing at the moment."""

    @property
    def unsent(self) -> int:
        """How many bytes the client has not taken, those in the kernel's queue included."""

    def write_chunk(self, data: bytes) -> None:
        """Writes one chunk of a response that ASGI's `send` has begun."""

    @property
    def framed(self) -> Framed:
        """Takes data that is framed as HTTP chunks already. Use it only after `write_chunk`."""

    def abort(self) -> None: ...


class Watcher(Protocol):
    """Is told what happens to the connection. The loop calls it, never while the request's own code runs."""

    def lost(self) -> None: ...

    def paused(self) -> None: ...

    def resumed(self) -> None: ...
