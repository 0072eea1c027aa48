"""The load client: it counts every event and believes no answer that is not whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from tests.bench.client import Answer, BadAnswer, Client, Tally, Target

_EVENTS = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"Sea"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"!"},"finish_reason":"length"}]}\n\n',
    b"data: [DONE]\n\n",
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


@asynccontextmanager
async def server(writes: Sequence[bytes], *, pause_s: float = 0.0) -> AsyncIterator[Target]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for write in writes:
            writer.write(write)
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.close()
        with suppress(ConnectionError):
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
    client = Client(target, tally)
    try:
        return await client.ask(target.request(max_tokens=2, stream=True), stream=True), tally
    finally:
        client.close()


async def test_counts_events_whatever_the_splits() -> None:
    body = b"".join(_EVENTS)
    for size in (1, 2, 7, 90, 4096):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        async with server([_HEAD + chunked(*pieces) + b"0\r\n\r\n"]) as target:
            answer, tally = await ask(target)
        assert tally.events == len(_EVENTS)
        assert answer.first_content_at > answer.asked_at


async def test_counts_an_event_that_ends_between_two_reads() -> None:
    body = b"".join(_EVENTS)
    cut = len(_EVENTS[0]) - 1
    async with server([_HEAD + chunked(body[:cut]), chunked(body[cut:]) + b"0\r\n\r\n"], pause_s=0.05) as target:
        _, tally = await ask(target)
    assert tally.events == len(_EVENTS)


async def test_the_role_chunk_is_no_first_token() -> None:
    async with server([_HEAD + chunked(_EVENTS[0]), chunked(*_EVENTS[1:]) + b"0\r\n\r\n"], pause_s=0.1) as target:
        answer, _ = await ask(target)
    assert answer.ttft_s > 0.09


@pytest.mark.parametrize(
    ("writes", "reason"),
    [
        ([_HEAD + chunked(*_EVENTS[:3]) + b"0\r\n\r\n"], "without .DONE."),
        ([_HEAD + chunked(*_EVENTS[:2])], "broke"),
        ([_HEAD + chunked(*_EVENTS[:2], _EVENTS[3]) + b"0\r\n\r\n"], "not as long"),
        ([_HEAD + chunked(_EVENTS[1], b'data: {"error":{}}\n\n', _EVENTS[3]) + b"0\r\n\r\n"], "error frame"),
        ([b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"], "status 429"),
        ([b"what?\r\n\r\n"], "no HTTP"),
    ],
)
async def test_an_answer_that_is_not_whole_is_refused(writes: Sequence[bytes], reason: str) -> None:
    async with server(writes) as target:
        with pytest.raises(BadAnswer, match=reason):
            await ask(target)
