"""The ASGI application: the same bytes as the standalone server, back-pressure, and clients that go away."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import pytest
from cloudach_simulator.asgi import ConnectionCut, Message, create_app
from cloudach_simulator.config import SimConfig

from .asks import TOOLS
from .conftest import CHAT, StartSim

HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
REQUESTS: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", CHAT, HELLO, {}),
    ("POST", CHAT, {**HELLO, "stream": True}, {}),
    ("POST", CHAT, {**HELLO, "stream": True, "return_token_ids": True, "n": 2, "temperature": 1}, {}),
    ("POST", CHAT, {**HELLO, "stream": True, "logprobs": True, "stop": ["e"]}, {}),
    ("POST", CHAT, {**HELLO, "stream": True, "stream_options": {"include_usage": True}}, {"x-sim-fault": "error@4"}),
    ("POST", CHAT, {**HELLO, "stream": True}, {"x-sim-fault": "end@4,crlf,comment,multiline,split:5"}),
    ("POST", CHAT, {**HELLO, "stream": True}, {"x-sim-fault": "stall@4:50"}),
    ("POST", CHAT, HELLO, {"x-sim-fault": "http:503"}),
    ("POST", CHAT, {**HELLO, "tools": TOOLS, "tool_choice": "required", "stream": True, "max_tokens": 60}, {}),
    ("POST", "/v1/completions", {"prompt": [1, 2, 3], "stream": True, "return_token_ids": True}, {}),
    ("POST", "/v1/completions", {"prompt": ["a", "b"], "echo": True, "logprobs": 1}, {}),
    ("POST", CHAT, {"messages": 5}, {}),
    ("POST", CHAT, {**HELLO, "model": "other"}, {}),
    ("GET", "/v1/models", None, {}),
    ("GET", CHAT, None, {}),
    ("GET", "/health", None, {}),
    ("GET", "/nope", None, {}),
    ("POST", "/tokenize", {"prompt": "The sea"}, {}),
    ("POST", "/detokenize", {"tokens": [72, 105]}, {}),
    ("GET", "/sim/requests?limit=1", None, {}),
]


def comparable(response: httpx.Response) -> tuple[int, dict[str, str], str]:
    headers = {k: v for k, v in response.headers.items() if k not in ("date", "server", "transfer-encoding")}
    text = re.sub(r'"(created|started|ended)":[\d.]+', r'"\1":0', response.text)
    text = re.sub(r"chatcmpl-tool-[0-9a-f]+", "chatcmpl-tool-0", text)
    headers.pop("content-length", None)
    return response.status_code, headers, text


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: f"{r[0]} {r[1]} {json.dumps(r[2])[:60]} {r[3]}")
async def test_both_adapters_answer_alike(request_: tuple[str, str, Any, dict[str, str]], start_sim: StartSim) -> None:
    method, path, body, headers = request_
    headers = {**headers, "x-request-id": "fixed"}
    sim = await start_sim(rate=0.0)
    standalone = await sim.http.request(method, path, json=body, headers=headers)
    app = create_app(SimConfig(rate=0.0, allow_exit=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sim") as client:
        inside = await client.request(method, path, json=body, headers=headers)
    assert comparable(inside) == comparable(standalone)


class Exchange:
    """A hand-written ASGI server for one request."""

    def __init__(self, body: Any, headers: dict[str, str] | None = None) -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": CHAT,
            "query_string": b"",
            "headers": [
                (b"content-type", b"application/json"),
                *((k.encode(), v.encode()) for k, v in (headers or {}).items()),
            ],
        }
        self.gone = asyncio.Event()
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.sent: list[Message] = []
        self._parts = [json.dumps(body).encode()]

    async def receive(self) -> Message:
        if self._parts:
            return {"type": "http.request", "body": self._parts.pop(), "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.may_send.wait()
        self.sent.append(message)


async def stats(app: Any) -> dict[str, int]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sim") as client:
        return dict((await client.get("/sim/stats")).json())


async def until_generated(app: Any, tokens: int) -> None:
    async with asyncio.timeout(20):
        while (await stats(app))["generated_tokens_total"] < tokens:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_server_that_does_not_take_bytes_holds_the_generation_back() -> None:
    app = create_app(SimConfig(rate=0.0, max_model_len=200_000))
    exchange = Exchange({**HELLO, "stream": True, "ignore_eos": True, "max_tokens": 20_000})
    exchange.may_send.clear()
    task = asyncio.create_task(app(exchange.scope, exchange.receive, exchange.send))
    await until_generated(app, 11)
    await asyncio.sleep(0.1)
    assert (await stats(app))["generated_tokens_total"] < 1000
    exchange.may_send.set()
    await asyncio.wait_for(task, 20)
    assert (await stats(app))["generated_tokens_total"] == 20_000
    assert exchange.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_stops_the_generation(stream: bool) -> None:
    app = create_app(SimConfig(rate=200.0))
    exchange = Exchange({**HELLO, "stream": stream, "ignore_eos": True, "max_tokens": 20_000})
    task = asyncio.create_task(app(exchange.scope, exchange.receive, exchange.send))
    await until_generated(app, 5)
    assert (await stats(app))["running"] == 1
    exchange.gone.set()
    await asyncio.wait_for(task, 20)
    after = await stats(app)
    assert (after["running"], after["aborted_total"]) == (0, 1)
    await asyncio.sleep(0.05)
    assert await stats(app) == after


@pytest.mark.parametrize("fault", ["close@3", "abort@3", "die@3"])
async def test_a_cut_raises_after_its_tokens(fault: str) -> None:
    app = create_app(SimConfig(rate=0.0, allow_exit=False))
    exchange = Exchange({**HELLO, "stream": True, "ignore_eos": True}, {"x-sim-fault": fault})
    with pytest.raises(ConnectionCut):
        await app(exchange.scope, exchange.receive, exchange.send)
    bodies = [message["body"] for message in exchange.sent[1:]]
    assert len(bodies) == 4
    assert all(message["more_body"] for message in exchange.sent[1:])


async def test_lifespan_is_answered() -> None:
    kinds = iter(["lifespan.startup", "lifespan.shutdown"])
    told: list[str] = []

    async def receive() -> Message:
        return {"type": next(kinds)}

    async def send(message: Message) -> None:
        told.append(message["type"])

    await create_app(SimConfig())({"type": "lifespan"}, receive, send)
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
