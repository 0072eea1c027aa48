"""What the kernel is let do while tokens run, as its own counts tell it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from cloudach_gateway.proxy.engine.connection import Connection, Shortcut

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
TOKENS = 60
TOKEN = b"12c\r\n" + b"x" * 300 + b"\r\n"

_SEGMENTS_OUT = 136  # of Linux' struct tcp_info


LATE_S = 0.03  # the kernel answers by itself after 40 ms, and from then on at once


class Counting(Shortcut):
    """on_time, sent: reads before the first token that came late, and packets that this side had sent until then."""

    def __init__(self, raw: Any) -> None:
        self.reads = self.on_time = self.sent = 0
        self._raw = raw
        self._last = 0.0
        self._late = False

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        now = asyncio.get_running_loop().time()
        self._late = self._late or now - (self._last or now) > LATE_S
        self._last = now
        if not self._late:
            self.on_time, self.sent = self.reads, segments_sent(self._raw)


class Offering:
    """A receiver whose shortcut takes over after the first token."""

    def __init__(self, connection: Connection, raw: Any) -> None:
        self._connection = connection
        self.shortcut = Counting(raw)

    def head(self, status: int, headers: object) -> None: ...

    def data(self, data: bytes) -> None:
        self._connection.offered = self.shortcut

    def end(self) -> None: ...

    def lost(self, cause: str) -> None: ...


def segments_sent(raw: Any) -> int:
    return int(struct.unpack_from("I", raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), _SEGMENTS_OUT)[0])


async def run(start_engine: Any, *, nodelay: bool) -> Counting:
    """A stream of TOKENS, 10 ms apart."""
    done = asyncio.Event()

    async def play(peer: Any) -> None:
        raw = peer._writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        await peer.request()
        await peer.say(HEAD + TOKEN)
        for _ in range(TOKENS):
            await asyncio.sleep(0.01)
            await peer.say(TOKEN)
        await asyncio.sleep(0.1)
        done.set()
        await peer.until_closed()

    engine = await start_engine(play)
    transport, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(lambda _: None, lambda _: None), "127.0.0.1", engine.port
    )
    receiver = Offering(connection, transport.get_extra_info("socket"))
    connection.send(REQUEST, receiver)
    await asyncio.wait_for(done.wait(), 20)
    connection.abort()
    return receiver.shortcut


async def test_not_each_token_is_answered_with_a_packet(start_engine: Any) -> None:
    for _ in range(20):
        seen = await run(start_engine, nodelay=True)
        if seen.on_time > TOKENS / 2:  # else the machine was too busy to tell
            break
    assert seen.on_time > TOKENS / 2, "no stream of tokens one by one"
    assert seen.sent < seen.on_time * 0.75


async def test_an_engine_that_waits_for_acknowledgements_is_held_up_once(start_engine: Any) -> None:
    """With late ones all along, two or more of its tokens would come at a time."""
    seen = await run(start_engine, nodelay=False)
    assert seen.reads > TOKENS * 2 / 3
