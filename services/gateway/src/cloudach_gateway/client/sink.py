"""Answers leave here: through an outlet for one request's answer, or as a JSON body for all else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from starlette.types import Scope, Send

from ..errors import GatewayError
from ..proxy.listening import SlowReader
from ..proxy.stream.express import Framed
from .connection import CONNECTION, ClientConnection
from .dialect import OPENAI, ClientDialect
from .response_writers import contents

_SSE_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back otherwise
]


class Tap(Protocol):
    """Gets a copy of an answer as it leaves."""

    def wrote(self, data: bytes) -> None:
        """Takes bytes of the response's body."""

    def ended(self) -> None:
        """Hears that all of the answer has been handed to the connection."""


class Outlet:
    """All of a request's answer goes to its client through its outlet, which also hears if the client reads or leaves.

    Use it as `with Outlet(…) as outlet`. When the client goes away, `on_lost` is called; it ends the request. A client
    that reads nothing for `slow_reader_s` while its last bytes wait raises SlowReader.

    Events go straight to the connection because ASGI's `send` was a fifth of what relaying a chunk cost. Without a tap,
    `write` is the connection's own method.
    """

    def __init__(
        self,
        scope: Scope,
        send: Send,
        *,
        on_lost: Callable[[], None],
        slow_reader_s: float,
        dialect: ClientDialect = OPENAI,
        tap: Tap | None = None,
    ) -> None:
        self._send = send
        self._connection: ClientConnection = scope["extensions"][CONNECTION]
        self._on_lost = on_lost
        self._slow_reader_s = slow_reader_s
        self._dialect = dialect
        self._tap = tap
        self._on_flow: Callable[[bool], None] | None = None
        self._on_gone: Callable[[], None] | None = None
        self._unsent = 0
        self.write: Callable[[bytes], None] = self._connection.write_chunk if tap is None else self._write_tapped
        self.started = False
        self.paused_at: float | None = None

    def __enter__(self) -> Outlet:
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

    # A stream: `start`, then `write` and `beat`, then `finish` or `fail`.

    @property
    def framed(self) -> Framed:
        """Returns the writer that takes finished HTTP chunks. It may be used after the first `write`."""
        return self._connection.framed if self._tap is None else _TappedFrames(self._connection.framed, self._tap)

    async def start(self) -> None:
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(_SSE_HEADERS)})

    async def beat(self) -> None:
        """Sends the client a heart-beat."""
        await self.start()
        self.write(self._dialect.heartbeat)

    async def finish(self, data: bytes) -> None:
        """Sends the last bytes. Raises SlowReader."""
        if self.paused_at is None:  # then it does not wait
            await self._finish(data)
            return
        try:
            async with asyncio.timeout_at(self.paused_at + self._slow_reader_s):
                await self._finish(data)
        except TimeoutError:
            raise SlowReader from None

    async def fail(self, error: GatewayError) -> None:
        """Ends a stream that has begun with an error. Raises SlowReader."""
        await self.finish(self._dialect.error_frame(error))

    # An answer in one piece.

    async def whole(self, body: bytes) -> None:
        """Sends a JSON answer. Raises SlowReader."""
        if self.paused_at is None:
            await send_json(self._send, body)
        else:
            try:
                async with asyncio.timeout(self._slow_reader_s):
                    await send_json(self._send, body)
            except TimeoutError:
                raise SlowReader from None
        if self._tap is not None:
            self._tap.wrote(body)
            self._tap.ended()

    # The client.

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
        """Returns True if a paused client has not even taken a part. If it has, `paused_at` is set to now."""
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

    async def _finish(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
        if self._tap is not None:
            self._tap.wrote(data)
            self._tap.ended()

    def _write_tapped(self, data: bytes) -> None:
        self._connection.write_chunk(data)
        if self._tap is not None:
            self._tap.wrote(data)


class _TappedFrames:
    """Takes HTTP chunks for the connection, and shows the tap what is in them."""

    def __init__(self, framed: Framed, tap: Tap) -> None:
        self._framed = framed
        self._tap = tap

    def write(self, data: bytes) -> None:
        self._framed.write(data)
        self._tap.wrote(contents(data))


async def send_json(send: Send, body: bytes, *, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    common = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*common, *headers]})
    await send({"type": "http.response.body", "body": body})
