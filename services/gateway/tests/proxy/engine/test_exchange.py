"""One request at one engine: the same events however its bytes come, and exactly one end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from cloudach_gateway.proxy.engine import exchange as module
from cloudach_gateway.proxy.engine.chunk import BadChunk, EngineReportedError, NotReproducible
from cloudach_gateway.proxy.engine.exchange import Exchange, Happened, Lane
from cloudach_gateway.proxy.engine.pool import Origin, Pool
from cloudach_gateway.proxy.placing.mailbox import Mailbox
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import until_async
from tests.support.wire import LAST_CHUNK, STREAM_HEAD, chunk

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"

Posted = tuple[Exchange, Happened]


def sse(*payloads: bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % payload for payload in payloads)


class Asked:
    """An exchange, what was posted of it, and the pool that its connection is of."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.mail: Mailbox[Posted] = Mailbox()
        self.exchange: Exchange

    async def begin(self, url: str, *, events: bool) -> Asked:
        connection = self.pool.idle(Origin.of(url)) or await self.pool.connect(Origin.of(url))
        self.exchange = Exchange(url, connection, self.mail.post, events=events)
        connection.send(REQUEST, self.exchange)
        return self

    async def next(self, seconds: float = 20.0) -> Happened | None:
        got = await self.mail.get(asyncio.get_running_loop().time() + seconds)
        return None if got is None else got[1]

    async def until_over(self) -> list[bytes]:
        """All payloads; `last` is how it ended."""
        got: list[bytes] = []
        first = await self.next()
        if first is Happened.EVENTS:
            self.exchange.sink = got.extend
            pending, self.exchange.pending = self.exchange.pending, []
            self.exchange.deliver(pending)
            while (first := await self.next()) is Happened.EVENTS:
                pass
        self.last = first
        return got

    async def until_whole(self) -> None:
        """As HTTP: its last bytes are there, or it is lost."""
        await until_async(lambda: self.exchange._connection is None)


async def ask(engine: Any, *, events: bool = True, pool: Pool | None = None) -> Asked:
    return await Asked(pool or Pool(connect_s=20)).begin(engine.url, events=events)


class Plays:
    """An engine for hypothesis, with a loop of its own: answers each request with the pieces set before."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.run = run
        self.pieces: list[bytes] = []
        self.closes = False

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.pool = Pool(connect_s=20)

    async def stop(self) -> None:
        self.pool.close()
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                closes = self.closes
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@pytest.fixture(scope="module")
def plays() -> Iterator[Plays]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        plays = Plays(runner.run)
        runner.run(plays.start())
        yield plays
        runner.run(plays.stop())


BIG = b'{"padding":"' + b"x" * 1_000_000 + b'"}'
events = st.lists(
    st.one_of(
        st.integers(0, 99).map(lambda n: b'{"n":%d}' % n),
        st.just('{"text":"🌊海"}'.encode()),
        st.just(b'{"two":\n"lines"}'),
        st.just(BIG),
    ),
    min_size=1,
    max_size=8,
)


def written(payload: bytes, form: str) -> bytes:
    lines = b"".join(b"data: " + line + b"\n" for line in payload.split(b"\n"))
    if form == "comment":
        lines = b": a word aside\n\n: and\n" + lines + b"event: message\nid: 7\n"
    if form == "tight":
        lines = lines.replace(b"data: ", b"data:")
    return lines + b"\n"


@settings(max_examples=200, deadline=None)
@given(
    payloads=events,
    forms=st.lists(st.sampled_from(["plain", "comment", "tight"]), min_size=9, max_size=9),
    crlf=st.booleans(),
    framing=st.sampled_from(["chunked", "length", "eof"]),
    frames=st.lists(st.integers(0, 3_000_000), max_size=6),
    informational=st.booleans(),
    leftovers=st.sampled_from([b"", b"HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\ndata: x\n\n", b"nonsense"]),
    cuts=st.lists(st.integers(0, 9_000_000), max_size=10),
    lane=st.booleans(),
)
def test_the_same_events_however_the_bytes_come(
    plays: Plays,
    payloads: list[bytes],
    forms: list[str],
    crlf: bool,
    framing: str,
    frames: list[int],
    informational: bool,
    leftovers: bytes,
    cuts: list[int],
    lane: bool,
) -> None:
    body = b"".join(map(written, [*payloads, b"[DONE]"], forms))
    if crlf:
        body = body.replace(b"\n", b"\r\n")
    stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    if framing == "chunked":
        edges = sorted({0, len(body), *(cut % len(body) for cut in frames)})
        stream += (
            b"transfer-encoding: chunked\r\n\r\n" + b"".join(chunk(body[a:b]) for a, b in pairwise(edges)) + LAST_CHUNK
        )
    elif framing == "length":
        stream += b"content-length: %d\r\n\r\n%b" % (len(body), body)
    else:
        stream += b"connection: close\r\n\r\n" + body
    stream = b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" * informational + stream
    stream += leftovers if framing != "eof" else b""
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    plays.pieces = [stream[a:b] for a, b in pairwise(edges)]
    plays.closes = framing == "eof"

    async def play() -> None:
        asked = await Asked(Pool(connect_s=20) if plays.closes else plays.pool).begin(plays.url, events=True)
        got: list[bytes] = []
        if lane:  # it takes what has one short event a read, as the real one does
            asked.exchange.lane = Lane(
                lambda data: (
                    b""
                    if data.startswith(b"data: {") and data.endswith(b"\n\n") and data.find(b"\n") == len(data) - 2
                    else None
                ),
                lambda _: None,
            )
            taken = asked.exchange.lane.relay

            def relay(data: bytes) -> bytes | None:
                relayed = taken(data)
                if relayed is not None:
                    got.append(data[6:-2])
                return relayed

            asked.exchange.lane = Lane(relay, lambda _: None)
            asked.exchange.sink = got.extend
            while await asked.next() is Happened.EVENTS:
                pass
            last = asked.exchange
            assert last.problem == ""
        else:
            got = await asked.until_over()
            assert asked.last is Happened.DONE
        assert got == payloads
        assert asked.exchange.status == 200
        asked.exchange.close()

    plays.run(play())


async def test_a_stream_and_the_connection_used_again(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.say(STREAM_HEAD, chunk(sse(b"{}")), chunk(sse(b'{"a":1}', b"[DONE]")), LAST_CHUNK)

    engine, pool = await start_engine(play), Pool(connect_s=20)
    for _ in range(3):
        asked = await ask(engine, pool=pool)
        assert await asked.until_over() == [b"{}", b'{"a":1}']
        assert asked.last is Happened.DONE
        asked.exchange.close()
        await asked.until_whole()
    assert engine.connections == 1


async def test_events_wait_for_their_sink(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(sse(b"1")), chunk(sse(b"2", b"3")), chunk(sse(b"[DONE]")), LAST_CHUNK)

    asked = await ask(await start_engine(play))
    await asked.until_whole()
    assert asked.exchange.pending == [b"1", b"2", b"3"]
    assert await asked.until_over() == [b"1", b"2", b"3"]
    assert asked.last is Happened.DONE


@pytest.mark.parametrize("at", ["close", "reset", "clean end"])
@pytest.mark.parametrize("after", [b"", chunk(sse(b"1")), chunk(sse(b"1") + b"data: 2\n")])
async def test_an_end_that_is_none(start_engine: Any, at: str, after: bytes) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD, after)
        await asyncio.sleep(0.02)
        if at == "clean end":
            await peer.say(LAST_CHUNK)
            await peer.until_closed()
        elif at == "reset":
            peer.reset()

    asked = await ask(await start_engine(play))
    assert await asked.until_over() == ([b"1"] if after else [])
    assert asked.last is Happened.BROKE
    expected = {"close": "connection closed", "clean end": "the stream ended without [DONE]"}
    assert asked.exchange.problem == expected.get(at, asked.exchange.problem)
    assert at != "reset" or "reset" in str(asked.exchange.problem).lower()
    assert not asked.exchange.resend
    asked.exchange.close()
    await asyncio.sleep(0.02)
    await until_async(lambda: asked.pool.size == (at == "clean end"))  # as HTTP, that one is whole


@pytest.mark.parametrize("problem", [EngineReportedError("dead"), BadChunk("odd"), NotReproducible("other text")])
@pytest.mark.parametrize("when", ["pending", "later", "with its end"])
async def test_what_the_sink_cannot_take_breaks_it(start_engine: Any, problem: Exception, when: str) -> None:
    """Also when [DONE] came with it, and had been told before anyone looked at the events."""

    async def play(peer: Any) -> None:
        await peer.request()
        if when == "later":
            await peer.say(STREAM_HEAD, chunk(sse(b"fine")))
            await asyncio.sleep(0.05)
        await peer.say((STREAM_HEAD if when != "later" else b"") + chunk(sse(b"bad", b"more")))
        if when == "with its end":
            await peer.say(chunk(sse(b"[DONE]")) + LAST_CHUNK)
        await peer.until_closed()

    asked = await ask(await start_engine(play))
    got: list[bytes] = []

    def sink(payloads: list[bytes]) -> None:
        got.extend(payloads)
        if b"bad" in payloads:
            raise problem

    assert await asked.next() is Happened.EVENTS
    if when == "with its end":
        await asked.until_whole()
    asked.exchange.sink = sink
    pending, asked.exchange.pending = asked.exchange.pending, []
    asked.exchange.deliver(pending)
    told = [await asked.next()]
    while told[-1] is not Happened.BROKE:
        told.append(await asked.next())
    assert asked.exchange.problem is problem
    assert got[-2:] == [b"bad", b"more"]
    asked.exchange.close()
    await asyncio.sleep(0.02)
    await until_async(lambda: asked.pool.size == (when == "with its end"))  # otherwise the engine's work is ended


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_a_refusal_is_a_whole_body(start_engine: Any, status: int) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 %d Sorry\r\ncontent-length: 12\r\n\r\ndata: no\n\n--" % status)
        await peer.until_closed()

    asked = await ask(await start_engine(play))
    assert await asked.next() is Happened.WHOLE
    assert (asked.exchange.status, asked.exchange.body) == (status, b"data: no\n\n--")
    assert asked.exchange.pending == []


async def test_a_whole_answer(start_engine: Any) -> None:
    body = b"data: not split\n\n" * 100_000

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await peer.until_closed()

    asked = await ask(await start_engine(play), events=False)
    assert await asked.next() is Happened.WHOLE
    assert asked.exchange.body == body


async def test_half_a_whole_answer_is_none(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")

    asked = await ask(await start_engine(play), events=False)
    assert await asked.next() is Happened.BROKE
    assert asked.exchange.problem == "connection closed"


async def test_a_connection_that_had_gone_stale_says_nothing_of_the_engine(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(sse(b"[DONE]")) + LAST_CHUNK)
        await peer.request()

    engine, pool = await start_engine(play), Pool(connect_s=20)
    first = await ask(engine, pool=pool)
    assert await first.until_over() == []
    assert not first.exchange.resend
    second = await ask(engine, pool=pool)
    assert second.exchange.resend
    assert await second.next() is Happened.BROKE
    assert (second.exchange.resend, second.exchange.status) == (True, 0)


async def test_who_closes_hears_no_more(start_engine: Any) -> None:
    gone = asyncio.Event()

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(sse(b"1")))
        await peer.until_closed()
        gone.set()

    asked = await ask(await start_engine(play))
    assert await asked.next() is Happened.EVENTS
    got: list[bytes] = []
    asked.exchange.sink = got.extend
    asked.exchange.close()
    asked.exchange.close()
    async with asyncio.timeout(20):
        await gone.wait()
    assert await asked.next(0.05) is None
    assert (got, asked.pool.size) == ([], 0)


async def test_an_answer_that_ends_before_its_engine_does(start_engine: Any) -> None:
    """A stop string across two engines: only the gateway sees it."""
    gone = asyncio.Event()

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(sse(b"1")), chunk(sse(b"2", b"3")))
        await peer.until_closed()
        gone.set()

    asked = await ask(await start_engine(play))
    got: list[bytes] = []

    def sink(payloads: list[bytes]) -> None:
        got.extend(payloads)
        if b"2" in payloads:
            asked.exchange.finish()

    assert await asked.next() is Happened.EVENTS
    asked.exchange.sink = sink
    asked.exchange.deliver(asked.exchange.pending)
    while (told := await asked.next()) is Happened.EVENTS:
        pass
    assert told is Happened.DONE
    assert asked.exchange.problem == ""
    async with asyncio.timeout(20):
        await gone.wait()
    assert await asked.next(0.05) is None


async def test_last_bytes_that_do_not_come_cost_the_connection(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(sse(b"1", b"[DONE]")))
        await peer.until_closed()

    asked = await ask(await start_engine(play))
    assert await asked.until_over() == [b"1"]
    asked.exchange.close()
    assert asked.pool.size == 1
    await until_async(lambda: asked.pool.size == 0)


async def test_last_bytes_come_also_to_who_was_paused(start_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAST_BYTES_S", 20.0)
    closed = asyncio.Event()

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(sse(b"1", b"[DONE]")))
        await closed.wait()
        await peer.say(LAST_CHUNK)
        await peer.until_closed()

    engine = await start_engine(play)
    asked = await ask(engine)
    assert await asked.until_over() == [b"1"]
    asked.exchange.pause()
    asked.exchange.close()
    closed.set()
    await asked.until_whole()
    assert asked.pool.idle(Origin.of(engine.url)) is not None


async def test_silence_while_paused_is_our_own(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(sse(b"1")))
        await peer.until_closed()

    asked = await ask(await start_engine(play))
    assert await asked.next() is Happened.EVENTS
    heard = asked.exchange.heard_at
    asked.exchange.pause()
    await asyncio.sleep(0.1)
    assert asked.exchange.heard_at == heard
    asked.exchange.resume()
    assert asked.exchange.heard_at > heard


async def test_an_endless_event(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(b"data: "))
        while True:
            await peer.say(chunk(b"x" * 1_000_000))

    asked = await ask(await start_engine(play))
    assert await asked.next(20) is Happened.BROKE
    assert "an event of more than" in str(asked.exchange.problem)
    await until_async(lambda: asked.pool.size == 0)


async def test_comments_are_no_sign_of_life(start_engine: Any) -> None:
    """An engine's front end may send them for an engine that hangs."""

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + chunk(sse(b"1")))
        await asyncio.sleep(0.05)
        await peer.say(chunk(b": ping\n\n"))
        await peer.until_closed()

    asked = await ask(await start_engine(play))
    assert await asked.next() is Happened.EVENTS
    heard = asked.exchange.heard_at
    await asyncio.sleep(0.1)
    assert asked.exchange.heard_at == heard
    assert await asked.next(0.01) is None
