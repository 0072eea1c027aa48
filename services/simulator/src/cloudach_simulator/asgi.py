"""The simulator as an ASGI application, for other servers such as Ray Serve's.

An ASGI application cannot cut a connection. It raises instead, so that the server closes the connection in the middle
of the body. Before the first byte that becomes the server's own 500.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from typing import Any

from .app import Simulator
from .config import SimConfig
from .run import Headers, Run
from .traces import Traces

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

_HIGH_WATER = 64 * 1024


class ConnectionCut(Exception):
    """The simulator raises it in the middle of a response, so that the server drops the connection."""


class _AsgiSink:
    """Collects what a run sends until the server takes it."""

    def __init__(self) -> None:
        self.request_id = b""
        self.wake = asyncio.Event()
        self.queue: deque[Message] = deque()
        self.held = 0
        self.ended = False
        self.is_cut = False

    @property
    def writable(self) -> bool:
        """Tells that the server takes what is written."""
        return self.held < _HIGH_WATER

    def _put(self, message: Message) -> None:
        if not self.ended:
            self.queue.append(message)
            self.held += len(message.get("body", b""))
            self.wake.set()

    def _headers(self, content_type: bytes, extra: Headers) -> list[tuple[bytes, bytes]]:
        kind = [(b"content-type", content_type)] if content_type else []
        return [*extra, *kind, (b"vary", b"Origin"), (b"x-request-id", self.request_id)]

    def start(self, content_type: bytes) -> None:
        """Sends a 200 and its headers."""
        self._put({"type": "http.response.start", "status": 200, "headers": self._headers(content_type, ())})

    def send_one(self, part: bytes) -> None:
        """Sends one part of the body."""
        self._put({"type": "http.response.body", "body": part, "more_body": True})

    def send(self, parts: Sequence[bytes]) -> None:
        """Sends parts of the body, each as a message of its own, as vLLM does."""
        for part in parts:
            self.send_one(part)

    def finish(self) -> None:
        """Ends the body."""
        self._put({"type": "http.response.body", "body": b"", "more_body": False})
        self.ended = True

    def reply(self, status: int, content_type: bytes, body: bytes, extra: Headers = ()) -> None:
        """Sends a whole response."""
        length = (b"content-length", str(len(body)).encode())
        headers = self._headers(content_type, (*extra, length))
        self._put({"type": "http.response.start", "status": status, "headers": headers})
        self._put({"type": "http.response.body", "body": body, "more_body": False})
        self.ended = True

    def cut(self, *, reset: bool) -> None:
        """Drops the connection."""
        self.is_cut = self.ended = True
        self.wake.set()

    def flushed(self) -> bool:
        """Tells that the server has taken everything."""
        return not self.queue


async def _body(receive: Receive, limit: int) -> bytes | None:
    """Returns the request's body; None if the client has gone."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size <= limit:
            parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts) if size <= limit else b"\0"


async def _watch(receive: Receive, sink: _AsgiSink) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    sink.ended = True
    sink.queue.clear()
    sink.wake.set()


async def _relay(sink: _AsgiSink, run: Run | None, send: Send) -> None:
    while True:
        while sink.queue:
            message = sink.queue.popleft()
            await send(message)
            full = not sink.writable
            sink.held -= len(message.get("body", b""))
            if run is not None and full and sink.writable:
                run.resume()
        if sink.is_cut:
            raise ConnectionCut
        if sink.ended:
            return
        sink.wake.clear()
        await sink.wake.wait()


async def _serve(simulator: Simulator, scope: Scope, receive: Receive, send: Send) -> None:
    body = await _body(receive, simulator.config.max_body)
    if body is None:
        return
    headers = {name.lower(): value for name, value in scope["headers"]}
    query = scope.get("query_string", b"").decode("latin-1")
    path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
    sink = _AsgiSink()
    run = simulator.handle(scope["method"], f"{path}?{query}" if query else path, headers, body, sink)
    watcher = asyncio.create_task(_watch(receive, sink))
    try:
        await _relay(sink, run, send)
    finally:
        watcher.cancel()
        if run is not None:
            run.abort()


def create_app(config: SimConfig, traces: Traces | None = None) -> Application:
    """One simulated engine as an ASGI application. `config` holds all its settings."""
    simulators: dict[asyncio.AbstractEventLoop, Simulator] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"].removeprefix("lifespan.")
                await send({"type": f"lifespan.{kind}.complete"})
                if kind == "shutdown":
                    return
        if scope["type"] != "http":
            return
        loop = asyncio.get_running_loop()
        simulator = simulators.get(loop)
        if simulator is None:
            simulator = simulators[loop] = Simulator(config, loop, traces)
        await _serve(simulator, scope, receive, send)

    return app
