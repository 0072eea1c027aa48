"""A connection to an engine: whatever the bytes' way, the receiver gets the body once and knows how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from cloudach_gateway.proxy.engine.connection import Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import until_async
from tests.support.wire import chunked

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"


class Heard:
    """A receiver that notes everything."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.body = bytearray()
        self.reads = 0
        self.ended = 0
        self.causes: list[str] = []
        self.over = asyncio.Event()

    def head(self, status: int, headers: Any) -> None:
        self.statuses.append(status)

    def data(self, data: bytes) -> None:
        self.body += data
        self.reads += 1

    def end(self) -> None:
        self.ended += 1
        self.over.set()

    def lost(self, cause: str) -> None:
        self.causes.append(cause)
        self.over.set()

    @property
    def whole(self) -> tuple[list[int], bytearray, int, list[str]]:
        return self.statuses, self.body, self.ended, self.causes


class Freed:
    """Where connections go that may be used again, and that are gone."""

    def __init__(self) -> None:
        self.free: list[Connection] = []
        self.gone: list[Connection] = []

    def make(self) -> Connection:
        return Connection(self.free.append, self.gone.append)


async def connect(port: int) -> tuple[Connection, Freed]:
    freed = Freed()
    _, connection = await asyncio.get_running_loop().create_connection(freed.make, "127.0.0.1", port)
    return connection, freed


async def ask(port: int) -> tuple[Heard, Connection, Freed]:
    connection, freed = await connect(port)
    heard = Heard()
    connection.send(REQUEST, heard)
    async with asyncio.timeout(20):
        await heard.over.wait()
    return heard, connection, freed


def whole_answer(body: bytes, form: str, cuts: list[int]) -> bytes:
    if form == "length":
        return HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    if form == "eof":
        return HEAD + b"connection: close\r\n\r\n" + body
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[a:b] for a, b in pairwise(edges)]
    return HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(*pieces)


INFORMATIONAL = [
    b"",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
]


class Answers:
    """An engine that sends what it was told, in the pieces it was told, and then closes or waits."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.run = run
        self.pieces: list[bytes] = []
        self.closes = False

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if not self.closes:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """With a loop of its own, for hypothesis calls what is no coroutine."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = Answers(runner.run)
        runner.run(answers.start())
        yield answers
        runner.run(answers.stop())


@settings(max_examples=250, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=300),
        st.integers(0, 3).map(
            lambda kind: (b"data: {}\r\n\r\n", b": c\n", b"data: a\ndata: b\n\n", b"\x00")[kind] * 40
        ),
        st.just(b'data: {"x":"' + b"y" * 1_000_000 + b'"}\n\n'),
    ),
    form=st.sampled_from(["length", "chunked", "eof"]),
    chunks=st.lists(st.integers(0, 2_000_000), max_size=6),
    before=st.sampled_from(INFORMATIONAL),
    after=st.sampled_from([b"", b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nbad", b"garbage", b"H", b"\r\n"]),
    cuts=st.lists(st.integers(0, 2_000_000), max_size=12),
)
def test_however_the_bytes_come(
    answers: Answers,
    body: bytes,
    form: str,
    chunks: list[int],
    before: bytes,
    after: bytes,
    cuts: list[int],
) -> None:
    """The receiver gets the answer and nothing else; what an engine says unasked costs it the connection only."""
    after = b"" if form == "eof" else after
    stream = before + whole_answer(body, form, chunks) + after
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    answers.pieces = [stream[a:b] for a, b in pairwise(edges)]
    answers.closes = form == "eof"

    async def play() -> None:
        heard, connection, freed = await ask(answers.port)
        assert heard.whole == ([200], body, 1, [])
        if form == "eof" or after.strip():
            await until_async(lambda: connection.closed)
        elif not after:  # a parser may take a b"\r\n" for part of what follows, or it comes when nobody listens
            assert not connection.closed
        connection.abort()
        assert not [one for one in freed.free if one is not connection]

    answers.run(play())


ANSWER = HEAD + b"content-length: 2\r\n\r\nhi"


async def test_a_connection_serves_one_request_after_another(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        for _ in range(3):
            await peer.request()
            await peer.say(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"2\r\nhi\r\n", b"0\r\n\r\n")
        await peer.until_closed()

    engine = await start_engine(play)
    connection, freed = await connect(engine.port)
    for number in range(1, 4):
        assert connection.used == (number > 1)
        heard = Heard()
        connection.send(REQUEST, heard)
        await heard.over.wait()
        assert heard.whole == ([200], b"hi", 1, [])
        assert freed.free == [connection] * number
        assert not connection.closed
    connection.abort()
    await until_async(lambda: freed.gone)
    assert freed.gone == [connection]


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"content-length: 2\r\nconnection: close\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        ANSWER + ANSWER,
        ANSWER + b"\x00",
    ],
    ids=["told to close", "HTTP/1.0", "answered twice", "garbage behind it"],
)
async def test_what_is_not_used_again(start_engine: Any, answer: bytes) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(answer)
        await peer.until_closed()

    heard, connection, freed = await ask((await start_engine(play)).port)
    assert heard.whole == ([200], b"hi", 1, [])
    assert connection.closed
    await until_async(lambda: freed.gone)
    assert (freed.free, freed.gone) == ([], [connection])


async def test_words_between_two_requests_cost_the_connection(start_engine: Any) -> None:
    answered = asyncio.Event()

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(ANSWER)
        await answered.wait()
        await peer.say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await peer.until_closed()

    _, connection, freed = await ask((await start_engine(play)).port)
    assert freed.free == [connection]
    answered.set()
    await until_async(lambda: freed.gone)
    assert freed.gone == [connection]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"", b""),
        (HEAD, b""),
        (HEAD + b"content-length: 9\r\n\r\nhi", b"hi"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", b"hi"),
    ],
    ids=["nothing", "in the head", "in a known length", "between chunks"],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_that_breaks_off(start_engine: Any, answer: bytes, body: bytes, reset: bool) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(answer)
        await asyncio.sleep(0.02)
        peer.reset() if reset else peer.close()

    heard, connection, freed = await ask((await start_engine(play)).port)
    assert (heard.body, heard.ended, len(heard.causes)) == (body, 0, 1)
    assert connection.closed
    assert (freed.free, freed.gone) == ([], [connection])


async def test_an_answer_without_a_length_ends_with_its_bytes_but_not_with_a_reset(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(HEAD + b"\r\n", b"hi")
        await asyncio.sleep(0.02)
        peer.reset() if peer.number else peer.close()

    engine = await start_engine(play)
    heard, _, _ = await ask(engine.port)
    assert heard.whole == ([200], b"hi", 1, [])
    heard, _, _ = await ask(engine.port)
    assert (heard.body, heard.ended) == (b"hi", 0)
    assert "reset" in heard.causes[0].lower()


@pytest.mark.parametrize("where", ["at once", "in a chunk's size"])
async def test_what_is_no_http(start_engine: Any, where: str) -> None:
    """What was understood before it counts."""

    async def play(peer: Any) -> None:
        await peer.request()
        good = HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n" if where != "at once" else b""
        await peer.say(good + b"zz nonsense\r\n\r\n")
        await peer.until_closed()

    heard, connection, _ = await ask((await start_engine(play)).port)
    assert heard.body == (b"" if where == "at once" else b"hi")
    assert heard.ended == 0
    assert [cause.startswith("not HTTP") for cause in heard.causes] == [True]
    assert connection.closed


async def test_who_aborts_hears_no_more(start_engine: Any) -> None:
    closed = asyncio.Event()

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(HEAD + b"content-length: 6\r\n\r\nhi")
        assert await peer.until_closed() == b""
        closed.set()

    engine = await start_engine(play)
    connection, freed = await connect(engine.port)

    class Impatient(Heard):
        def data(self, data: bytes) -> None:
            super().data(data)
            connection.abort()

    heard = Impatient()
    connection.send(REQUEST, heard)
    async with asyncio.timeout(20):
        await closed.wait()
    assert heard.whole == ([200], b"hi", 0, [])
    assert freed.gone == [connection]
    connection.abort()
    connection.pause_reading()
    connection.resume_reading()


async def test_who_pauses_gets_nothing_and_then_everything(start_engine: Any) -> None:
    size = 20_000_000
    written = []

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(HEAD + b"content-length: %d\r\n\r\n" % size)
        for _ in range(0, size, 100_000):
            await peer.say(b"x" * 100_000)
            written.append(100_000)
        await peer.until_closed()

    engine = await start_engine(play)
    connection, _ = await connect(engine.port)
    begun = asyncio.Event()

    class Begun(Heard):
        def data(self, data: bytes) -> None:
            super().data(data)
            begun.set()

    heard = Begun()
    connection.send(REQUEST, heard)
    await begun.wait()
    connection.pause_reading()
    connection.pause_reading()
    held, stopped = len(heard.body), -1
    async with asyncio.timeout(20):  # until the buffers between the two are full
        while sum(written) > stopped:
            stopped = sum(written)
            await asyncio.sleep(0.2)
    assert len(heard.body) == held
    assert stopped < size
    await asyncio.sleep(0.2)
    assert sum(written) == stopped, "the engine waits"
    connection.resume_reading()
    connection.resume_reading()
    async with asyncio.timeout(40):
        await heard.over.wait()
    assert heard.whole == ([200], b"x" * size, 1, [])


async def test_an_answer_that_ends_while_paused_leaves_a_connection_that_reads(start_engine: Any) -> None:
    """The client's side may fill up with the very bytes that end the answer."""

    async def play(peer: Any) -> None:
        for _ in range(2):
            await peer.request()
            await peer.say(ANSWER)
        await peer.until_closed()

    engine = await start_engine(play)
    connection, freed = await connect(engine.port)

    class Full(Heard):
        def data(self, data: bytes) -> None:
            super().data(data)
            connection.pause_reading()

    for number in (1, 2):
        heard = Full()
        connection.send(REQUEST, heard)
        async with asyncio.timeout(20):
            await heard.over.wait()
        assert heard.whole == ([200], b"hi", 1, [])
        assert len(freed.free) == number
    connection.abort()


async def test_nothing_can_be_sent_without_a_connection(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.until_closed()

    connection, freed = await connect((await start_engine(play)).port)
    connection.abort()
    await until_async(lambda: freed.gone)
    with pytest.raises(RuntimeError, match="not connected"):
        connection.send(REQUEST, Heard())


async def test_a_request_that_is_refused_before_it_is_out(start_engine: Any) -> None:
    """What is left of it would stand before the next one."""

    async def play(peer: Any) -> None:
        await peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await asyncio.sleep(0.3)

    engine = await start_engine(play)
    connection, freed = await connect(engine.port)
    heard = Heard()
    connection.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\n\r\n" + bytes(30_000_000), heard)
    async with asyncio.timeout(20):
        await heard.over.wait()
    assert heard.whole == ([413], b"no", 1, [])
    assert (freed.free, connection.closed) == ([], True)


ENDLESS = {
    "one header": [HEAD + b"x: ", *[b"y" * 65536] * 400],
    "many headers": [HEAD, *[b"x: %b\r\n" % (b"y" * 1000) * 64] * 400],
    "informational answers": [b"HTTP/1.1 100 Continue\r\n\r\n" * 2500] * 400,
    "an extension of a chunk's size": [
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n5;",
        *[b"y" * 65536] * 400,
    ],
    "trailers": [
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
        *[b"x: %b\r\n" % (b"y" * 1000) * 64] * 400,
    ],
}


@pytest.mark.parametrize("where", ENDLESS)
async def test_what_stands_beside_the_body_has_a_bound(start_engine: Any, where: str) -> None:
    """25 MB of it; all that is kept of an answer's head are four headers, and of those the last value."""
    said = 0

    async def play(peer: Any) -> None:
        nonlocal said
        await peer.request()
        for piece in ENDLESS[where]:
            said += len(piece)
            await peer.say(piece)

    heard, connection, freed = await ask((await start_engine(play)).port)
    await heard.over.wait()
    assert heard.causes == ["not HTTP: ValueError: a head or trailers without an end"]
    assert connection.closed
    assert freed.free == []
    assert said < 10_000_000
