"""Where answers go: a client's connection as streams need it, and whole JSON answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Scope, Send

from ..proxy.stream.express import Framed
from .connection import CONNECTION, ClientConnection

_SSE_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back otherwise
]


class SseSink:
    """An event stream towards one client, and the news of that client. `with SseSink(…) as sink`.

    Events go straight to the connection: ASGI's `send` was a fifth of what relaying a chunk cost.
    """

    def __init__(self, scope: Scope, send: Send, *, on_lost: Callable[[], None]) -> None:
        self._send = send
        self._connection: ClientConnection = scope["extensions"][CONNECTION]
        self._on_lost = on_lost
        self._on_flow: Callable[[bool], None] | None = None
        self._on_gone: Callable[[], None] | None = None
        self._unsent = 0
        self.write = self._connection.write_chunk
        self.started = False
        self.paused_at: float | None = None

    def __enter__(self) -> SseSink:
        self._connection.watcher = self
        if self._connection.closed:
            self._on_lost()
        elif self._connection.full:  # an earlier answer is still on its way
            self.paused()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection.watcher is self:
            self._connection.watcher = None
        self._on_flow = self._on_gone = None

    @property
    def framed(self) -> Framed:
        return self._connection.framed

    async def start(self) -> None:
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(_SSE_HEADERS)})

    async def finish(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    def cut(self) -> None:
        """Closes the client's connection; nobody is told."""
        self._connection.watcher = None
        self._connection.abort()

    async def abort(self) -> None:
        self.cut()
        await asyncio.sleep(0)  # the loss is noticed in the next turn of the loop

    def on_news(self, flow_changed: Callable[[bool], None], gone: Callable[[], None]) -> None:
        self._on_flow, self._on_gone = flow_changed, gone

    def takes_nothing(self) -> bool:
        """Whether a paused client has not even taken a part; if it has, its time begins anew."""
        unsent, self._unsent = self._unsent, self._connection.unsent
        if self._unsent >= unsent:
            return True
        self.paused_at = asyncio.get_running_loop().time()
        return False

    # What the connection tells.

    def lost(self) -> None:
        if self._on_gone is not None:
            self._on_gone()
        self._on_lost()

    def paused(self) -> None:
        self.paused_at = asyncio.get_running_loop().time()
        self._unsent = self._connection.unsent
        if self._on_flow is not None:
            self._on_flow(True)

    def resumed(self) -> None:
        self.paused_at = None
        if self._on_flow is not None:
            self._on_flow(False)


async def send_json(send: Send, body: bytes, *, status: int = 200) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
