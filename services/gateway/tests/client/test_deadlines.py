"""Connections that only wait end, and there are only so many: those who ask how the process is get in all the same."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import time

import pytest
import uvloop
from cloudach_gateway import metrics
from cloudach_gateway.client.door import SPARE, most_connections

from .conftest import Serve

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET /x HTTP/1.1\r\nHost: x\r\nX-A: "
SOON = {"keep_alive_s": 0.3, "head_s": 0.3}


async def ends(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(20):
        return await reader.read()


async def test_a_connection_without_a_request(serve: Serve) -> None:
    async with serve(**SOON) as served:
        reader, writer = await served.connect()
        assert await ends(reader) == b""
        writer.close()


async def test_a_connection_between_requests(serve: Serve) -> None:
    async with serve(**SOON) as served:
        reader, writer = await served.connect()
        for _ in range(4):  # the time is each pause's own
            writer.write(GET)
            assert b"0 bytes" in await reader.read(1000)
            await asyncio.sleep(0.15)
        assert await ends(reader) == b""
        writer.close()


def test_a_request_that_comes_as_the_time_ends_is_answered(serve: Serve) -> None:
    """After other connections' work uvloop, which gateways run on, looks at the clock before it reads what has come. To
    close then would be to lose a request. Blank lines, which are none, win no time in the same way for good."""

    async def late(sent: bytes) -> bytes:
        async with serve(**SOON) as served:
            loop = asyncio.get_running_loop()
            with socket.create_connection(("127.0.0.1", served.port)) as client:
                client.setblocking(False)
                while not served.door.open:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                busy, wake = socket.socketpair()

                def work() -> None:
                    loop.remove_reader(busy)
                    client.send(sent)
                    time.sleep(0.5)

                with busy, wake:
                    loop.add_reader(busy, work)
                    wake.send(b"x")
                    async with asyncio.timeout(20):
                        return await loop.sock_recv(client, 1000)

    assert b"0 bytes" in uvloop.run(late(GET))
    assert uvloop.run(late(b"\r\n")) == b""


async def test_half_a_head(serve: Serve) -> None:
    async with serve(**SOON) as served:
        answer = await served.ask(HALF)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("before", [b"", GET])
async def test_a_head_byte_by_byte_has_no_more_time(serve: Serve, before: bytes) -> None:
    async with serve(head_s=0.4) as served:
        reader, writer = await served.connect()
        if before:
            writer.write(before)
            assert b"0 bytes" in await reader.read(1000)
        writer.write(HALF)
        ended = asyncio.create_task(ends(reader))
        async with asyncio.timeout(20):
            while not ended.done():
                writer.write(b"a")
                await asyncio.sleep(0.05)
        assert (await ended).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_blank_lines_are_no_way_to_stay(serve: Serve) -> None:
    async with serve(**SOON) as served:
        reader, writer = await served.connect()
        ended = asyncio.create_task(ends(reader))
        async with asyncio.timeout(20):
            while not ended.done():
                writer.write(b"\r\n")
                await asyncio.sleep(0.05)
        writer.close()


async def test_a_blank_line_after_a_request_begins_no_head(serve: Serve) -> None:
    """Some clients send one, and a server ignores it (RFC 9112, 2.2): their connection is as idle as others."""
    async with serve(head_s=0.2, keep_alive_s=20.0) as served:
        reader, writer = await served.connect()
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}\r\n")
        assert b"2 bytes" in await reader.read(1000)
        await asyncio.sleep(0.6)
        writer.write(GET)
        assert (await reader.read(1000)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_half_a_head_in_one_read_with_the_end_of_a_chunked_body(serve: Serve) -> None:
    before = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    async with serve(head_s=0.3, keep_alive_s=20.0) as served:
        answers = await served.ask(before + HALF)
        assert b"2 bytes" in answers
        assert b"HTTP/1.1 408 " in answers


async def test_the_rest_of_a_body_that_nobody_wants(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request has been answered. Who sends it whole is served on; who drips is not."""
    monkeypatch.setattr("cloudach_gateway.client.http_protocol._REST_OF_BODY_S", 0.4)
    head = b"POST /at-once HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    async with serve() as served:
        reader, writer = await served.connect()
        writer.write(head)
        assert b"0 bytes" in await reader.read(1000)
        writer.write(b"x" * 1000 + GET)
        assert b"0 bytes" in await reader.read(1000)
        writer.write(head)
        assert b"0 bytes" in await reader.read(1000)
        ended = asyncio.create_task(ends(reader))
        async with asyncio.timeout(20):
            while not ended.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
        writer.close()


async def test_an_answer_that_takes_long_is_waited_for(serve: Serve) -> None:
    async def slow(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(1.0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]

    async with serve(application=slow, **SOON) as served:
        answer = await served.ask(GET + HALF)  # half a head behind it has its time from then on
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\n\r\nok" in answer
        assert b"HTTP/1.1 408 " in answer


async def test_more_connections_than_there_may_be(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    refused = metrics.CONNECTIONS_REFUSED._value.get()
    caplog.set_level(logging.WARNING)
    async with serve(most=10) as served:
        idle = [await served.connect() for _ in range(10)]
        health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        for _ in range(SPARE + 10):  # one after the other: each leaves
            answer = await served.ask(health)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
        answer = await served.ask(GET)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
        assert ("GET", "/x") not in served.seen
        more = [await served.connect() for _ in range(SPARE)]
        with pytest.raises(ConnectionError):
            for _ in range(100):  # it may be some turns of the loop until it is told
                await served.ask(health)
        assert metrics.CONNECTIONS_REFUSED._value.get() > refused
        assert len([one for one in caplog.records if one.getMessage() == "too many connections"]) == 1
        for _, writer in idle + more:
            writer.close()
        async with asyncio.timeout(20):
            while served.door.open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await served.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).startswith(
            b"HTTP/1.1 200"
        )


async def test_a_spare_connection_is_not_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(most=1) as served:
        monkeypatch.setattr(served.door, "spare_head_s", 0.2, raising=False)
        _, first = await served.connect()
        await asyncio.sleep(0.05)
        reader, second = await served.connect()
        assert await ends(reader) == b""
        assert (await served.ask(HALF)).startswith(b"HTTP/1.1 408 ")
        first.close()
        second.close()


def test_there_are_no_more_connections_than_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert most_connections(8192) == (1024 - 512 - SPARE) // 2
    assert most_connections(100) == 100
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65_536, 65_536))
    assert most_connections(8192) == 8192
