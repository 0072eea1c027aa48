"""What the client needs of whoever carries its requests to the API server and knows who we are there."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
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
    """An answer whose head has come. Both methods raise Unreachable when the connection breaks off."""

    @property
    def status(self) -> int: ...

    async def read(self) -> bytes:
        """The whole body."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, cut anywhere."""
        ...


class Transport(Protocol):
    """It sets no deadline, because the client knows how long each request may take and cancels it."""

    def send(
        self, method: str, path: str, *, query: Mapping[str, str], content: str, body: Any | None
    ) -> AbstractAsyncContextManager[Answer]:
        """One request, until its answer has been read. `body` is sent as JSON, with the content type `content`.

        Raises Unreachable when there is no answer, and when no proof of who we are can be had.
        """
        ...
