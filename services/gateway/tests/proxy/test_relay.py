"""Answers that are put together here, from an engine that keeps tool calls back until they are complete."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from cloudach_gateway.catalog import ServedModel
from cloudach_gateway.errors import GatewayError
from cloudach_gateway.proxy.placing import EngineRequest
from cloudach_gateway.proxy.relay import Relay
from cloudach_gateway.proxy.tally import Tally
from cloudach_gateway.record import RequestRecord
from cloudach_gateway.settings import Failover, Model
from openai_wire.requests import ChatRequest, parse

from .test_placing import DONE, HEAD, Run, chunk

CHAT = "/v1/chat/completions"
CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return chunk(b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": [choice]}))


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
@pytest.mark.parametrize("role_first", [True, False])
async def test_an_engine_that_says_nothing_until_a_call_is_complete(
    start_engine: Any, dialect: str, role_first: bool
) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(HEAD + (event({"role": "assistant"}) if role_first else b""))
        await asyncio.sleep(1.0)
        with suppress(OSError):
            await peer.say(event({"tool_calls": [CALL]}, "tool_calls") + DONE)

    run = Run(engine := await start_engine(play), first_token_s=0.3, between_tokens_s=0.3, total_s=20)
    model = ServedModel.from_settings(Model(id="m", upstreams=(engine.url,), dialect=dialect))  # type: ignore[arg-type]
    fields = {"model": "m", "messages": [{"role": "user", "content": "?"}], "tools": [{"type": "function"}]}
    body = orjson.dumps(fields)
    request = replace(run.request, model=model, path=CHAT, body=body, fields=fields)
    assert isinstance(request, EngineRequest)
    relay = Relay(run.engines, run.timeouts, Failover(attempts=1, spread_s=0.02))
    asking = relay.gathered(request, parse(ChatRequest, body), Tally(by_chunk=True), RequestRecord("POST", CHAT))
    if dialect == "vllm":  # it tells of each token
        with pytest.raises(GatewayError):
            await asking
    else:
        [choice] = orjson.loads(await asking)["choices"]
        assert choice["message"]["tool_calls"][0]["id"] == "a"
    await run.nothing_is_left()
