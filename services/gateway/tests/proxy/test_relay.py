"""Answers that are put together here, from engines that stream tool calls late or not at all."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import orjson
import pytest
from cloudach_gateway.api.generated import ChunkAnswers
from cloudach_gateway.catalog import ServedModel
from cloudach_gateway.errors import GatewayError
from cloudach_gateway.proxy.engine import routes
from cloudach_gateway.proxy.relay import Relay
from cloudach_gateway.proxy.stream.client_view import ClientView
from cloudach_gateway.proxy.stream.tally import Tally
from cloudach_gateway.record import RequestRecord
from cloudach_gateway.settings import Failover, Model

from tests.support.wire import STREAM_HEAD, chunk

from .placing.runs import DONE, Run

CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return chunk(b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": [choice]}))


async def ask(run: Run, engine: Any, dialect: str, tally: Tally) -> bytes:
    model = ServedModel.from_settings(Model(id="m", upstreams=(engine.url,), dialect=dialect))  # type: ignore[arg-type]
    asked = {"model": "m", "messages": [{"role": "user", "content": "?"}], "tools": [{"type": "function"}]}
    fields = {**asked, "stream": True, "stream_options": {"include_usage": True}}
    request = run.request._replace(model=model, route=routes.CHAT, body=orjson.dumps(fields), fields=fields)
    relay = Relay(run.engines, run.timeouts, Failover(attempts=1, spread_s=0.02))
    return await relay.gathered(
        request, ChunkAnswers(ClientView("m", chat=True)), tally, RequestRecord("POST", routes.CHAT.path)
    )


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
@pytest.mark.parametrize("role_first", [True, False])
async def test_an_engine_that_says_nothing_until_a_call_is_complete(
    start_engine: Any, dialect: str, role_first: bool
) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + (event({"role": "assistant"}) if role_first else b""))
        await asyncio.sleep(1.0)
        with suppress(OSError):
            await peer.say(event({"tool_calls": [CALL]}, "tool_calls") + DONE)

    run = Run(engine := await start_engine(play), first_token_s=0.3, between_tokens_s=0.3, total_s=20)
    asking = ask(run, engine, dialect, Tally(by_chunk=True))
    if dialect == "vllm":  # it tells of each token
        with pytest.raises(GatewayError):
            await asking
    else:
        [choice] = orjson.loads(await asking)["choices"]
        assert choice["message"]["tool_calls"][0]["id"] == "a"
    await run.nothing_is_left()


@pytest.mark.parametrize(
    ("dialect", "why", "asked"),
    [
        ("openai", "Cannot use tools with stream", 2),
        ("openai", "the prompt is too long", 1),
        ("vllm", "Cannot use tools with stream", 1),
    ],
)
async def test_an_engine_that_streams_no_tool_calls_is_asked_for_the_whole_answer(
    start_engine: Any, dialect: str, why: str, asked: int
) -> None:
    bodies: list[bytes] = []
    whole = {"choices": [{"index": 0, "message": {"tool_calls": [CALL]}}], "usage": {"completion_tokens": 5}}

    async def play(peer: Any) -> None:
        first, _, body = await peer.request()
        if first.startswith("GET"):  # the model's context length
            return
        bodies.append(body)
        refused = b'"stream"' in body
        said = orjson.dumps({"error": {"message": why, "code": 400}} if refused else whole)
        status = b"400 No" if refused else b"200 OK"
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        await peer.say(head % (status, len(said)) + said)

    run, tally = Run(engine := await start_engine(play)), Tally(by_chunk=True)
    if asked == 1:
        with pytest.raises(GatewayError, match=why):
            await ask(run, engine, dialect, tally)
    else:
        [choice] = orjson.loads(await ask(run, engine, dialect, tally))["choices"]
        assert choice["message"]["tool_calls"] == [CALL]
        assert tally.completion_tokens == 5
        assert b"stream_options" not in bodies[1]
    assert len(bodies) == asked
    await run.nothing_is_left()
