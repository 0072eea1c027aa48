"""However the bytes of a connection are cut into reads, the same requests come out of them."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest
import uvicorn
from cloudach_gateway.client.door import Door
from cloudach_gateway.client.http_protocol import EnvelopeHttpProtocol
from cloudach_gateway.lifecycle import Lifecycle
from cloudach_gateway.settings import Timeouts
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

HOST = b"Host: x\r\n"
REQUESTS = {
    "plain": (b"GET /plain HTTP/1.1\r\n" + HOST + b"\r\n", b""),
    "length": (b"POST /length HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n\r\nGET / HTTP\r\n"[:-1], b"GET / HTTP\r"),
    "chunked": (
        b"POST /chunked HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"\r\n\r\nabc",
    ),
    "upgrade": (
        b"POST /upgrade HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nGET ",
        b"GET ",
    ),
    "upgrade, chunked": (
        b"POST /upgrade-chunked HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: x\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n",
        b"GET /",
    ),
    "upgrade without a body": (b"GET /bare HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n", b""),
    "a blank line before": (b"\r\n\r\nGET /blank HTTP/1.1\r\n" + HOST + b"\r\n", b""),
}


class Transport(asyncio.Transport):
    """Takes all, and knows whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.closed = False
        self.ended = False  # before the client left

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def requests_of(parts: list[bytes], *, most_waiting: int = 4) -> tuple[list[tuple[str, bytes]], Transport]:
    seen: list[tuple[str, bytes]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen.append((scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(application, lifespan="off", log_config=None)
    config.load()
    transport = Transport()
    protocol = EnvelopeHttpProtocol(
        config=config,
        server_state=ServerState(),
        app_state={},
        _loop=asyncio.get_running_loop(),
        timeouts=Timeouts(),
        door=Door(10, frozenset()),
        lifecycle=Lifecycle(),
    )
    protocol.connection_made(transport)
    for part in parts:
        protocol.data_received(part)
        assert len(protocol.pipeline) <= most_waiting
        if transport.closed:
            break
        while not transport.reading:  # noqa: ASYNC110
            await asyncio.sleep(0)
    for _ in range(20 * len(REQUESTS)):
        await asyncio.sleep(0)
    transport.ended = transport.closed
    protocol.connection_lost(None)
    return seen, transport


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted({place % len(data) for place in at}), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places) if begin < end]


@given(
    st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=12), st.lists(st.integers(0, 10_000), max_size=60)
)
def test_any_requests_in_any_pieces(names: list[str], places: list[int]) -> None:
    data = b"".join(REQUESTS[name][0] for name in names)
    seen, transport = asyncio.run(requests_of(cut(data, places), most_waiting=40))
    bodies = [REQUESTS[name][1] for name in names]
    assert [body for _, body in seen] == bodies
    assert transport.written.count(b"HTTP/1.1 200 OK") == len(names)
    assert not transport.ended


@pytest.mark.parametrize("names", [["plain"] * 400, ["plain", "length", "upgrade"] * 100])
async def test_only_a_few_wait(names: list[str]) -> None:
    """One read with hundreds of requests."""
    seen, _ = await requests_of([b"".join(REQUESTS[name][0] for name in names)])
    assert len(seen) >= 5


OTHERS = (
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD /head HTTP/1.0\r\n\r\n",
    b"GET http://a/b?c#d HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
)
PIECES = (b"\r\n", b"\r\n\r\n", b"\n", b" ", b"a" * 100, b"\x00", b":", b"0")


def mutated(dice: random.Random) -> bytes:
    data = bytearray(b"".join(dice.choice([one for one, _ in REQUESTS.values()] + [*OTHERS]) for _ in range(3)))
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data))
        match dice.randrange(4):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                del data[at : at + dice.randint(1, 20)]
            case 2:
                data[at:at] = dice.choice(PIECES)
            case _:
                data[at:at] = data[dice.randrange(len(data)) :][: dice.randint(1, 60)]
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_nearly_http(seed: int) -> None:
    """Answers or refusals, and nothing that was not foreseen."""
    dice = random.Random(seed)
    unforeseen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
    for _ in range(500):
        data = mutated(dice)
        places = [dice.randrange(10_000) for _ in range(dice.choice((0, 2, 20)))]
        _, transport = await requests_of(cut(data, places), most_waiting=60)
        statuses = {int(one[:3]) for one in transport.written.split(b"HTTP/1.1 ")[1:] if one[:3].isdigit()}
        assert statuses <= {100, 200, 400, 405, 414, 431, 501, 505}, (data, statuses)
        assert unforeseen == [], data
