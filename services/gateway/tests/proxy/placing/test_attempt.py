"""An attempt ends once, whatever happens, and says how; its observers hear of it before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest
from cloudach_gateway.proxy.placing.cause import Cause
from cloudach_gateway.record import AttemptRecord, RequestRecord

from tests.support.wire import STREAM_HEAD

from .runs import CALL, DONE, PATH, Heard, Run, breaks_after, token


async def answer(peer: Any) -> None:
    await peer.request()
    await peer.say(STREAM_HEAD + token(0) + DONE)


async def test_an_attempt_cannot_end_twice(start_engine: Any) -> None:
    run = Run(await start_engine(answer))
    with run.placer() as placer:
        attempt = await placer.place(CALL)
        attempt.end(Cause.COMPLETED)
        with pytest.raises(RuntimeError, match="ended before: completed"):
            attempt.end(Cause.LOST)
    (record,) = run.record.attempts
    assert record.end == "completed"
    assert record.first_token_at is not None
    assert record.ended_at is not None
    assert record.began_at <= record.first_token_at <= record.ended_at
    await run.nothing_is_left()


@pytest.mark.parametrize("how", ["left", "by an error"])
async def test_nor_can_its_end_be_forgotten(start_engine: Any, how: str) -> None:
    run = Run(await start_engine(answer))

    async def forgets() -> None:
        with run.placer() as placer:
            await placer.place(CALL)
            if how == "by an error":
                raise ZeroDivisionError

    if how == "by an error":
        with pytest.raises(ZeroDivisionError):
            await forgets()
    else:
        await forgets()
    assert [attempt.end for attempt in run.record.attempts] == ["let_go"]
    await run.nothing_is_left()


async def test_one_attempt_has_to_end_before_the_next_begins(start_engine: Any) -> None:
    run = Run(await start_engine(answer))
    placer = run.placer()
    with pytest.raises(RuntimeError, match="outside"):
        await placer.place(CALL)
    with placer:
        first = await placer.place(CALL)
        with pytest.raises(RuntimeError, match="has not ended"):
            await placer.place(CALL)
        first.end(Cause.STALLED)
        await placer.place(CALL)
    assert [attempt.end for attempt in run.record.attempts] == ["stalled", "let_go"]
    await run.nothing_is_left()


async def test_each_attempt_of_a_request_is_told(start_engine: Any) -> None:
    """Also those before the first byte, and where the answer moved to another engine."""

    async def play(peer: Any) -> None:
        if peer.number == 0:
            await breaks_after(10)(peer)
        elif peer.number == 1:
            await peer.request()
            await peer.say(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
        else:
            await peer.request()
            await peer.say(STREAM_HEAD, *(token(n) for n in range(10, 20)), token(20, end='"stop"'), DONE)

    engine = await start_engine(play)
    run, heard = Run(engine), Heard()
    await run.conversation(heard).stream(heard)
    assert [attempt.end for attempt in heard.attempts] == ["lost", "refused", "completed"]
    assert [attempt.first_token_at is not None for attempt in heard.attempts] == [True, False, True]
    assert {attempt.upstream for attempt in heard.attempts} == {engine.url}
    await run.nothing_is_left()


async def test_an_observer_may_add_headers_to_the_request_of_its_attempt(start_engine: Any) -> None:
    """As a trace does, which names the attempt to the engine."""
    traces: list[str] = []

    async def play(peer: Any) -> None:
        _, headers, _ = await peer.request()
        assert headers["x-request-id"] == "req"
        traces.append(headers["traceparent"])
        if peer.number == 0:
            await peer.say(b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        else:
            await peer.say(STREAM_HEAD + token(0, end='"stop"') + DONE)

    class Tracing(Heard):
        def attempt_began(self, attempt: AttemptRecord) -> None:
            super().attempt_began(attempt)
            attempt.headers.append((b"traceparent", b"of attempt %d" % len(self.attempts)))

    run, heard = Run(await start_engine(play)), Tracing()
    await run.conversation(heard).stream(heard)
    assert [attempt.end for attempt in heard.attempts] == ["refused", "completed"]
    assert traces == ["of attempt 1", "of attempt 2"]
    await run.nothing_is_left()


def test_what_a_log_line_says_of_an_attempt() -> None:
    record, attempt = RequestRecord("POST", PATH), AttemptRecord("http://engine", [], began_at=10.0)
    record.attempt_began(attempt)
    attempt.first_token_at, attempt.ended_at, attempt.end = 10.25, 11.5, Cause.LOST.label
    assert [one.log_fields() for one in record.attempts] == [
        {"upstream": "http://engine", "end": "lost", "first_token_ms": 250.0, "duration_ms": 1500.0}
    ]
