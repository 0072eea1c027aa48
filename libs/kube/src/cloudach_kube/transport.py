"""A transport carries requests to the API server and proves who we are. The client declares here what it needs of
one.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

# A server that vanished without a word is noticed within half a minute, though a watch may be silent for long.
KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class Answer(Protocol):
    """This is an answer whose head has come. Both methods raise Unreachable when the connection breaks off."""

    @property
    def status(self) -> int: ...

    async def read(self) -> bytes:
        """Returns the whole body."""
        ...

    def chunks(self) -> AsyncGenerator[bytes]:
        """Yields the body as it comes, cut anywhere."""
        ...


class Transport(Protocol):
    """A transport sets no deadline, because the client knows how long each request may take and cancels it."""

    def send(
        self, method: str, path: str, *, query: Mapping[str, str], content: str, body: Any | None
    ) -> AbstractAsyncContextManager[Answer]:
        """Sends one request. `body` goes as JSON, with the content type `content`. The answer holds while the context
        is open.

        Raises Unreachable when there is no answer, and when no proof of who we are can be had.
        """
        ...
