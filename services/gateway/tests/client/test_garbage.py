"""What a connection leaves behind: nothing that only the garbage collector would find."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct

import pytest
import uvloop

from .conftest import Serve

HOST = b"Host: x\r\n"
POST = b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n"
KINDS = {
    "one request, closed by the client": (b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n", False),
    "one request, closed by the server": (b"GET /x HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", False),
    "HEAD": (b"HEAD /x HTTP/1.1\r\n" + HOST + b"\r\n", False),
    "HTTP/1.0": (b"GET /x HTTP/1.0\r\n\r\n", False),
    "a reset": (b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n", True),
    "two requests": (b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n" + POST + b"\r\nabcd", False),
    "a pipeline, reset": ((b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n") * 30, True),
    "an upgrade": (POST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\nabcd", False),
    "half a head": (b"GET /x HTTP/1.1\r\nHo", True),
    "half a body": (POST + b"\r\nab", True),
    "a body that nobody waits for": (POST.replace(b"/x", b"/at-once") + b"\r\nab", True),
    "no HTTP": (b"hello there\r\n\r\n", False),
    "no Host": (b"GET /x HTTP/1.1\r\n\r\n", False),
    "a large head": (b"GET /x HTTP/1.1\r\n" + b"X-Some: header\r\n" * 5000, False),
    "nothing": (b"", False),
    "nothing, reset": (b"", True),
}
COUNT = 200


def visit(port: int, sent: bytes, *, reset: bool) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(sent)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif sent:
            client.recv(65536)


async def left_behind(serve: Serve, kind: str) -> int:
    sent, reset = KINDS[kind]

    def visits(count: int) -> None:
        for _ in range(count):
            visit(served.port, sent, reset=reset)

    async def all_gone() -> None:
        async with asyncio.timeout(20):
            while served.door.open or served.state.tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async with serve() as served:
        await asyncio.to_thread(visits, 5)
        await all_gone()
        gc.collect()
        gc.disable()
        try:
            await asyncio.to_thread(visits, COUNT)
            await all_gone()
            served.seen.clear()
            return gc.collect()
        finally:
            gc.enable()


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_leaves_nothing(serve: Serve, kind: str) -> None:
    """On uvloop, as in production: asyncio's own transports are cycles."""
    assert uvloop.run(left_behind(serve, kind)) < COUNT / 4
