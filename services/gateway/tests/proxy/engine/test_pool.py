"""Connections that are kept: which one is used again, and that none stays behind."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

import pytest
import trustme
from cloudach_gateway.proxy.engine.connection import Connection
from cloudach_gateway.proxy.engine.pool import IDLE_S, Origin, Pool

from tests.support.ports import free_port
from tests.support.waiting import until_async
from tests.support.wire import response

ANSWER = response("hi", kind=None)
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


class Heard:
    def __init__(self) -> None:
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def head(self, status: int, headers: object) -> None:
        pass

    def data(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        self.over.set_result("end")

    def lost(self, cause: str) -> None:
        self.over.set_result(cause)


async def answer_all(peer: Any) -> None:
    while True:
        await peer.request()
        await peer.say(ANSWER)


async def ask(connection: Connection) -> str:
    heard = Heard()
    connection.send(REQUEST, heard)
    async with asyncio.timeout(20):
        return await heard.over


async def used(pool: Pool, origin: Origin, number: int) -> list[Connection]:
    """So many connections that have been used at the same time, idle now."""
    connections = [await pool.connect(origin) for _ in range(number)]
    for connection in connections:
        assert await ask(connection) == "end"
    return connections


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://engine", ("engine", 80, False, "", b"engine")),
        ("https://engine", ("engine", 443, True, "", b"engine")),
        ("http://engine:8000/llama/", ("engine", 8000, False, "/llama", b"engine:8000")),
        ("http://[::1]:8000", ("::1", 8000, False, "", b"[::1]:8000")),
        ("http://user:secret@engine:1", ("engine", 1, False, "", b"engine:1")),
    ],
)
def test_an_origin(url: str, expected: tuple[Any, ...]) -> None:
    origin = Origin.of(url)
    assert (origin.host, origin.port, origin.tls, origin.prefix, origin.authority) == expected


async def test_the_last_one_used_is_the_next(start_engine: Any) -> None:
    engine = await start_engine(answer_all)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    assert pool.idle(origin) is None
    first, second = await used(pool, origin, 2)
    assert (pool.size, engine.connections) == (2, 2)
    assert [pool.idle(origin), pool.idle(origin), pool.idle(origin)] == [second, first, None]
    pool.close()


async def test_each_origin_has_its_own(start_engine: Any) -> None:
    one, other = await start_engine(answer_all), await start_engine(answer_all)
    pool = Pool(connect_s=20)
    (kept,) = await used(pool, Origin.of(one.url), 1)
    assert pool.idle(Origin.of(other.url)) is None
    assert pool.idle(Origin.of(one.url + "/with/a/prefix")) is kept
    pool.close()


async def test_what_the_engine_has_closed_is_not_used(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(ANSWER)

    engine = await start_engine(play)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    await used(pool, origin, 3)
    await until_async(lambda: pool.size == 0)
    assert pool.idle(origin) is None


async def test_what_has_been_idle_for_too_long_is_closed(start_engine: Any) -> None:
    engine = await start_engine(answer_all)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    for old in await used(pool, origin, 3):
        old.idle_since -= IDLE_S + 1
    (fresh,) = await used(pool, origin, 1)  # the old ones are looked at when one comes back
    await until_async(lambda: pool.size == 1)
    assert pool.idle(origin) is fresh
    fresh.idle_since -= IDLE_S + 1
    assert await ask(fresh) == "end"
    fresh.idle_since -= IDLE_S + 1
    assert pool.idle(origin) is None
    await until_async(lambda: pool.size == 0)


async def test_who_has_left_gets_no_further_request(start_engine: Any) -> None:
    """Idle connections end at once, and one that is in use when its answer is there."""
    answer_now = asyncio.Event()

    async def play(peer: Any) -> None:
        while True:
            await peer.request()
            if peer.number == 2:
                await answer_now.wait()
            await peer.say(ANSWER)

    engine, other = await start_engine(play), await start_engine(answer_all)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    await used(pool, origin, 2)
    (elsewhere,) = await used(pool, Origin.of(other.url), 1)
    running, heard = await pool.connect(origin), Heard()
    running.send(REQUEST, heard)
    pool.leave(origin)
    await until_async(lambda: pool.size == 2)
    assert pool.idle(origin) is None
    (back,) = await used(pool, origin, 1)  # an address that is another pod's now
    answer_now.set()
    assert await heard.over == "end"
    await until_async(lambda: running.closed)
    assert [pool.idle(origin), pool.idle(origin)] == [back, None]
    assert pool.idle(Origin.of(other.url)) is elsewhere
    pool.leave(Origin.of(f"http://127.0.0.1:{free_port()}"))  # nobody has been there
    pool.close()


async def test_a_connection_that_is_being_made_is_left_too(start_engine: Any) -> None:
    engine = await start_engine(answer_all)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    making = asyncio.create_task(pool.connect(origin))
    await asyncio.sleep(0)
    pool.leave(origin)
    connection = await making
    assert await ask(connection) == "end"
    await until_async(lambda: pool.size == 0)
    assert pool.idle(origin) is None


async def test_a_connection_may_be_too_old_for_another_request(start_engine: Any) -> None:
    engine = await start_engine(answer_all)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    old, young = await used(pool, origin, 2)
    old.made_at -= 20
    young.made_at -= 10
    assert pool.idle(origin, young_s=15) is young
    assert pool.idle(origin, young_s=15) is None
    await until_async(lambda: old.closed)
    assert await ask(young) == "end"
    assert pool.idle(origin) is young
    pool.close()


async def test_origins_that_come_and_go_leave_nothing(start_engine: Any) -> None:
    """Pods have new addresses for months."""
    pool = Pool(connect_s=20)
    for turn in range(30):
        engine = await start_engine(answer_all)
        origin = Origin.of(engine.url)
        await used(pool, origin, 2)
        with suppress(OSError):
            await pool.connect(Origin.of(f"http://127.0.0.1:{free_port()}"))
        if turn % 2:
            pool.leave(origin)
        else:
            await pool.connect(origin)
            while (idle := pool.idle(origin)) is not None:
                idle.abort()
            for connection in list(pool._open):
                connection.abort()
    await until_async(lambda: pool.size == 0)
    assert pool._kept == {}


@pytest.mark.parametrize("ends", ["cut here", "lost there", "not kept"])
async def test_nothing_is_remembered_of_a_connection_that_is_gone(start_engine: Any, ends: str) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        if ends == "not kept":
            await peer.say(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhi")
        elif ends == "cut here":
            await peer.until_closed()

    engine = await start_engine(play)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    for _ in range(20):
        connection = await pool.connect(origin)
        heard = Heard()
        connection.send(REQUEST, heard)
        if ends == "cut here":
            connection.abort()
        else:
            assert await heard.over == ("end" if ends == "not kept" else "connection closed")
    await until_async(lambda: pool.size == 0)
    assert pool.idle(origin) is None


async def test_a_connection_that_is_closed_at_once_is_no_connection(start_engine: Any) -> None:
    """Never half of one: whoever asks for it gets an OSError, or learns when it sends."""

    async def play(peer: Any) -> None:
        peer.reset()

    engine = await start_engine(play)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    for turns in range(60):
        with suppress(OSError):
            connection = await pool.connect(origin)
            for _ in range(turns % 4):
                await asyncio.sleep(0)
            if not connection.closed:
                assert (await ask(connection)).startswith("connection")
    await until_async(lambda: pool.size == 0)


async def test_who_does_not_listen_or_does_not_answer(start_engine: Any) -> None:
    pool = Pool(connect_s=30)
    with pytest.raises(ConnectionRefusedError):
        await pool.connect(Origin.of(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(socket.gaierror):
        await pool.connect(Origin.of("http://no-such-engine.invalid"))
    pool = Pool(connect_s=0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        others = [socket.socket() for _ in range(3)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
        with pytest.raises(TimeoutError):
            await pool.connect(Origin.of(f"http://127.0.0.1:{port}"))
        for other in others:
            other.close()
    assert pool.size == 0


async def test_a_cancelled_connect_leaves_nothing_open(start_engine: Any) -> None:
    open_there = 0

    async def play(peer: Any) -> None:
        nonlocal open_there
        open_there += 1
        await peer.until_closed()
        open_there -= 1

    engine = await start_engine(play)
    pool, origin = Pool(connect_s=20), Origin.of(engine.url)
    for turns in range(30):
        task = asyncio.create_task(pool.connect(origin))
        for _ in range(turns % 6):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            (await task).abort()
    await asyncio.sleep(0.1)
    await until_async(lambda: (pool.size, open_there) == (0, 0))


async def test_closing_the_pool_closes_what_is_idle_and_what_runs(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        if peer.number < 2:
            await peer.request()
            await peer.say(ANSWER)
        await peer.until_closed()

    pool = Pool(connect_s=20)
    origin = Origin.of((await start_engine(play)).url)
    await used(pool, origin, 2)
    running, heard = await pool.connect(origin), Heard()
    running.send(REQUEST, heard)
    assert pool.size == 3
    pool.close()
    await until_async(lambda: pool.size == 0)
    assert not heard.over.done(), "who closes need not be told"


async def test_tls(start_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(there)
    engine = await start_engine(answer_all, tls=there)
    pool = Pool(connect_s=20)
    with pytest.raises(ssl.SSLError, match="verify"):
        await pool.connect(Origin.of(f"https://localhost:{engine.port}"))

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr(pool, "_tls", trusting)
    origin = Origin.of(f"https://localhost:{engine.port}")
    (kept,) = await used(pool, origin, 1)
    assert pool.idle(origin) is kept
    assert await ask(kept) == "end"
    with pytest.raises(ssl.SSLError, match="verify"):
        await pool.connect(Origin.of(f"https://127.0.0.1:{engine.port}"))
    pool.close()
    await until_async(lambda: pool.size == 0)
