"""The load client: it counts every event and believes no answer that is not whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from tests.bench.client import Answer, Arrivals, BadAnswer, Client, Cut, Tally, Target
from tests.support.wire import STREAM_HEAD

_EVENTS = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"Sea"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"!"},"finish_reason":"length"}]}\n\n',
    b"data: [DONE]\n\n",
)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


@asynccontextmanager
async def server(
    writes: Sequence[bytes], *, pause_s: float = 0.0, read: Callable[[], int] | None = None
) -> AsyncIterator[Target]:
    """read: grows when the client has read something; the pause before the next write begins then."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            for write in writes:
                before = read() if read is not None else 0
                writer.write(write)
                await writer.drain()
                while read is not None and read() == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                await asyncio.sleep(pause_s)
            writer.close()
            await writer.wait_closed()

    answering: list[asyncio.Task[None]] = []
    listening = await asyncio.start_server(
        lambda *pair: answering.append(asyncio.create_task(answer(*pair))), "127.0.0.1", 0
    )
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield Target(f"http://127.0.0.1:{port}", "m")
        await asyncio.gather(*answering)


async def ask(target: Target) -> tuple[Answer, Tally]:
    tally = Tally()
    with Client(target, tally) as client:
        return await client.ask(target.request(max_tokens=2, stream=True), stream=True), tally


async def test_counts_events_whatever_the_splits() -> None:
    body = b"".join(_EVENTS)
    for size in (1, 2, 7, 90, 4096):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        async with server([STREAM_HEAD + chunked(*pieces) + b"0\r\n\r\n"]) as target:
            answer, tally = await ask(target)
        assert tally.events == len(_EVENTS)
        assert answer.first_content_at > answer.asked_at


async def test_counts_an_event_that_ends_between_two_reads() -> None:
    body = b"".join(_EVENTS)
    cut = len(_EVENTS[0]) - 1
    async with server([STREAM_HEAD + chunked(body[:cut]), chunked(body[cut:]) + b"0\r\n\r\n"], pause_s=0.05) as target:
        _, tally = await ask(target)
    assert tally.events == len(_EVENTS)


async def test_counts_events_that_come_one_by_one() -> None:
    """As a paced stream's do: whole HTTP chunks, which the client takes without parsing them."""
    middle = [chunked(_EVENTS[1])] * 5 + [chunked(_EVENTS[1], _EVENTS[1])]
    writes = [STREAM_HEAD + chunked(*_EVENTS[:2]), *middle, chunked(_EVENTS[2]), chunked(_EVENTS[3]), b"0\r\n\r\n"]
    async with server(writes, pause_s=0.02) as target:
        answer, tally = await ask(target)
    assert tally.events == answer.events == len(_EVENTS) + 7
    assert _EVENTS[2] in answer.tail
    assert answer.tail.endswith(_EVENTS[3])


async def test_chunks_are_timed_against_their_witness() -> None:
    writes = [STREAM_HEAD + chunked(*_EVENTS[:2]), chunked(_EVENTS[1]), chunked(*_EVENTS[2:]) + b"0\r\n\r\n"]
    tally = Tally(phases=2)
    async with server(writes, pause_s=0.05, read=lambda: tally.events) as target:
        with Client(target, tally) as client:
            tally.ticks[1] = time.perf_counter()
            tally.arrivals = arrivals = Arrivals()
            await client.ask(target.request(max_tokens=2, stream=True), stream=True, phase=1)
    assert len(arrivals.lags) == len(arrivals.gaps) == 3
    assert 0.04 < arrivals.gaps[1] < arrivals.lags[1] < arrivals.lags[2]


async def test_what_does_not_end_can_be_cut() -> None:
    async with server([STREAM_HEAD + chunked(*_EVENTS[:2])] + [chunked(_EVENTS[1])] * 10, pause_s=0.05) as target:
        with Client(target, Tally()) as client:
            asked = asyncio.create_task(client.ask(target.request(max_tokens=2, stream=True), stream=True))
            await asyncio.sleep(0.1)
            client.abort()
            with pytest.raises(Cut):
                await asked
            with pytest.raises(Cut):
                await client.ask(target.request(max_tokens=2, stream=True), stream=True)


async def test_the_role_chunk_is_no_first_token() -> None:
    async with server([STREAM_HEAD + chunked(_EVENTS[0]), chunked(*_EVENTS[1:]) + b"0\r\n\r\n"], pause_s=0.1) as target:
        answer, _ = await ask(target)
    assert answer.ttft_s > 0.09


@pytest.mark.parametrize(
    ("writes", "reason"),
    [
        ([STREAM_HEAD + chunked(*_EVENTS[:3]) + b"0\r\n\r\n"], "without .DONE."),
        ([STREAM_HEAD + chunked(*_EVENTS[:2])], "broke"),
        ([STREAM_HEAD + chunked(*_EVENTS[:2], _EVENTS[3]) + b"0\r\n\r\n"], "not as long"),
        ([STREAM_HEAD + chunked(_EVENTS[1], b'data: {"error":{}}\n\n', _EVENTS[3]) + b"0\r\n\r\n"], "error frame"),
        ([b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"], "status 429"),
        ([b"what?\r\n\r\n"], "no HTTP"),
    ],
)
async def test_an_answer_that_is_not_whole_is_refused(writes: Sequence[bytes], reason: str) -> None:
    async with server(writes) as target:
        with pytest.raises(BadAnswer, match=reason):
            await ask(target)
