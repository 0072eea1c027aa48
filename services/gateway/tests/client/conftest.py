"""The HTTP protocol on a real socket, with a small application behind it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from cloudach_gateway.client.door import Door
from cloudach_gateway.client.http_protocol import EnvelopeHttpProtocol
from cloudach_gateway.lifecycle import Lifecycle
from cloudach_gateway.settings import Timeouts
from uvicorn.server import ServerState

Application = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass
class Served:
    """`seen`: the scopes of requests, without what belongs to the server."""

    port: int
    state: ServerState
    door: Door
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    seen: list[tuple[str, str]] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *parts: bytes, pause_s: float = 0.0) -> bytes:
        """What comes back until the server ends the connection."""
        reader, writer = await self.connect()
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def serving(
        *, most: int = 1000, application: Application | None = None, **timeouts: float
    ) -> AsyncIterator[Served]:
        served = Served(0, ServerState(), Door(most, frozenset(("/healthz",))))

        async def record(scope: Any, receive: Any, send: Any) -> None:
            served.seen.append((scope["method"], scope["path"]))
            await (application or swallow)(scope, receive, send)

        config = uvicorn.Config(record, lifespan="off", log_config=None, server_header=False, date_header=False)
        config.load()
        loop = asyncio.get_running_loop()
        protocol = functools.partial(
            EnvelopeHttpProtocol, timeouts=Timeouts(**timeouts), door=served.door, lifecycle=served.lifecycle
        )
        listening = await loop.create_server(
            lambda: protocol(config=config, server_state=served.state, app_state={}, _loop=loop), "127.0.0.1", 0
        )
        async with listening:
            served.port = listening.sockets[0].getsockname()[1]
            yield served
            for connection in list(served.state.connections):
                connection.transport.abort()
        async with asyncio.timeout(20):
            while served.state.connections or served.state.tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    return serving


async def swallow(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, then says how long it was; at once where the path is /at-once."""
    size = 0
    while scope["path"] != "/at-once":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    content = b"%d bytes" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    await send({"type": "http.response.body", "body": content})
