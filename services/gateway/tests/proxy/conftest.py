"""Sockets as in production: uvloop on this side, and engines that say exactly what a test has them say."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

Play = Callable[["Peer"], Awaitable[None]]
StartEngine = Callable[..., Awaitable["Engine"]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    if any("virtual_time" in mark.args for mark in item.iter_markers("usefixtures")):  # uvloop's clock is libuv's
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


class Peer:
    """One connection of an engine, as its own code sees it."""

    def __init__(self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.engine = engine
        self.number = engine.connections
        self._reader = reader
        self._writer = writer

    async def request(self) -> tuple[str, dict[str, str], bytes]:
        """The next request: its first line, its headers in small letters, its body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return first, headers, await self._reader.readexactly(int(headers.get("content-length", 0)))

    async def say(self, *pieces: bytes) -> None:
        """Each piece travels alone."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0.001)

    async def until_closed(self) -> bytes:
        """What still comes until the other side has gone."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """As the kernel does for a process that is gone."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Engine:
    """Plays `play` for each connection; when that returns, the connection is closed."""

    def __init__(self, play: Play) -> None:
        self.connections = 0
        self._play = play

    async def start(self, stack: AsyncExitStack, tls: ssl.SSLContext | None) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        stack.callback(server.close)
        self.stop = server.close
        self.port: int = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, reader, writer)
        self.connections += 1
        try:
            await self._play(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the last one at the test's end: asyncio's own server would complain
        finally:
            peer.close()


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    async with AsyncExitStack() as stack:

        async def start(play: Play, *, tls: ssl.SSLContext | None = None) -> Engine:
            engine = Engine(play)
            await engine.start(stack, tls)
            return engine

        yield start
