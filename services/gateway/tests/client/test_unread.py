"""A client that takes none of its answers does not stay, whatever it asks; one that takes them slowly may."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from .conftest import Serve, Served

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


async def connect_with_little_room(served: Served, size: int = 4096) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", served.port))
    return client


async def test_requests_on_requests_and_no_answer_is_taken(serve: Serve) -> None:
    async with serve(slow_reader_s=0.3) as served:
        loop = asyncio.get_running_loop()
        with await connect_with_little_room(served) as client:

            async def send_on() -> None:
                while True:
                    await loop.sock_sendall(client, GET * 1000)

            sending = asyncio.create_task(send_on())
            try:
                async with asyncio.timeout(60):
                    while served.door.open or not served.seen:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)


async def test_not_even_the_answer_that_something_was_no_request(serve: Serve) -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.2)  # until the rest has been refused
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})

    async with serve(application=large, slow_reader_s=0.3) as served:
        with await connect_with_little_room(served) as client:
            await asyncio.get_running_loop().sock_sendall(client, GET + b"nothing\r\n\r\n")
            async with asyncio.timeout(60):
                while served.door.open or not served.seen:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


async def test_a_large_answer_that_is_taken_slowly_arrives_whole(serve: Serve) -> None:
    """Its second half waits for longer than a client may take nothing, but this one takes something all the time."""
    size, pieces = 4_000_000, 3

    async def large(scope: Any, receive: Any, send: Any) -> None:
        length = b"%d" % (size * pieces)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for number in range(pieces):
            await send({"type": "http.response.body", "body": b"x" * size, "more_body": number < pieces - 1})

    async with serve(application=large, slow_reader_s=0.3) as served:
        loop = asyncio.get_running_loop()
        with await connect_with_little_room(served, 65_536) as client:
            await loop.sock_sendall(client, GET)
            taken = 0
            async with asyncio.timeout(60):
                while taken < size * pieces:
                    found = await loop.sock_recv(client, 250_000)
                    assert found
                    taken += len(found)
                    await asyncio.sleep(0.03)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_the_end_of_a_large_answer_may_take_longer_than_a_connection_may_idle(
    serve: Serve, version: bytes
) -> None:
    size = 9_000_000

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": b"x" * size})

    async with serve(application=large, slow_reader_s=0.3, keep_alive_s=0.3) as served:
        loop = asyncio.get_running_loop()
        with await connect_with_little_room(served, 65_536) as client:
            await loop.sock_sendall(client, GET.replace(b"1.1", version))
            taken = 0
            async with asyncio.timeout(60):
                while taken < size:
                    found = await loop.sock_recv(client, 250_000)
                    assert found
                    taken += len(found)
                    await asyncio.sleep(0.02)


async def test_but_not_for_one_that_takes_nothing_of_it(serve: Serve) -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9000000")]})
        await send({"type": "http.response.body", "body": b"x" * 9_000_000})

    async with serve(application=large, slow_reader_s=0.3, keep_alive_s=0.3) as served:
        for version in (b"1.1", b"1.0"):
            with await connect_with_little_room(served) as client:
                await asyncio.get_running_loop().sock_sendall(client, GET.replace(b"1.1", version))
                async with asyncio.timeout(60):
                    while served.door.open or not served.seen:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            served.seen.clear()
