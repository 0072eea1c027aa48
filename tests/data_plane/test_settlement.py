"""What a request is settled at when it ends early: an engine's own figure, else what an engine had taken up of it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission.key_records import KeyLimits
from redis import Redis

from tests.data_plane.conftest import PATIENT, Stack, chat
from tests.support.raw_engine import RawEngine
from tests.support.stack import Gateway, served_by, start_gateway, start_sim
from tests.support.valkey import Valkey, valkey
from tests.support.waiting import until
from tests.support.wire import events, response

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
LONG = "word and word again " * 500


@pytest.fixture(scope="module")
def redis() -> Iterator[Valkey]:
    with valkey() as running:
        yield running


@pytest.fixture(scope="module")
def slow(redis: Valkey) -> Iterator[Stack]:
    """Minutes are real ones, so that what was settled stays in the window for the whole test."""
    with (
        start_sim(rate=20, model="sim", max_model_len=100_000) as sim,
        start_gateway({"models": [served_by(sim)], "timeouts": PATIENT, "redis": {"url": redis.url}}) as gateway,
    ):
        yield Stack(sim, gateway, "")


def new_key(redis: Valkey, tokens: int | None = None) -> str:
    with KeyStore(redis.url) as store:
        return keys.create(store, tenant="tests", limits=KeyLimits(tokens=tokens)).api_key


def billed(redis: Valkey, key: str, requests: int = 1) -> Counter[str]:
    """The totals of all days, once they have so many requests."""
    found: Counter[str] = Counter()

    def are_there() -> bool:
        found.clear()
        with Redis.from_url(redis.url, decode_responses=True) as client:
            for day in client.scan_iter(f"cloudach:{{tests}}:usage:{key.split('-')[3]}:*"):
                found.update({name: int(value) for name, value in client.hgetall(day).items()})
        return found["requests"] >= requests

    until(are_there)
    return found


@pytest.fixture(autouse=True)
def _clean(slow: Stack) -> None:
    slow.sim.reset()
    slow.sim.configure(rate=20)


@asynccontextmanager
async def left_after(
    gateway: Gateway, key: str, body: dict[str, Any], path: str = CHAT
) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A request whose client closes its connection at the end of the block."""
    async with httpx.AsyncClient(timeout=60) as client:
        asked = asyncio.create_task(
            client.post(gateway.url + path, headers={"authorization": f"Bearer {key}"}, json=body)
        )
        yield asked
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def cancelled(stack: Stack, key: str, body: dict[str, Any], path: str = CHAT) -> None:
    """A request that is left while the engine computes its prompt."""
    before = stack.sim.stats()["requests_total"]
    async with left_after(stack.gateway, key, body, path):
        await asyncio.to_thread(until, lambda: stack.sim.stats()["requests_total"] > before)


def remaining(gateway: Gateway, key: str) -> int:
    answer = httpx.get(f"{gateway.base_url}/models", headers={"authorization": f"Bearer {key}"})
    return int(answer.headers["x-ratelimit-remaining-tokens"])


CANCELLED = {
    "stream": (CHAT, chat(LONG, stream=True, max_tokens=100)),
    "whole": (CHAT, chat(LONG, max_tokens=100)),
    "tools": (CHAT, chat(LONG, max_tokens=100, tools=[TOOL])),
    "prompt_logprobs": (CHAT, chat(LONG, max_tokens=100, prompt_logprobs=1)),
    "text": (TEXT, {"model": "sim", "prompt": LONG, "max_tokens": 100, "stream": True}),
    "echo": (TEXT, {"model": "sim", "prompt": LONG, "max_tokens": 100, "echo": True}),
}


@pytest.mark.parametrize("form", CANCELLED)
async def test_a_prompt_that_an_engine_has_is_settled_at_its_estimate(redis: Valkey, slow: Stack, form: str) -> None:
    path, body = CANCELLED[form]
    key = new_key(redis, tokens=100_000)
    slow.sim.arm("prefill:20000", times=None)
    await cancelled(slow, key, body, path)
    bill = await asyncio.to_thread(billed, redis, key)
    assert bill["cancelled"] == 1
    at_the_engine = slow.sim.stats()["prompt_tokens_total"]
    assert at_the_engine > 1000
    assert at_the_engine <= bill["prompt_tokens"] <= 3 * at_the_engine
    assert bill["completion_tokens"] == 0
    unseen = 100 if form in ("prompt_logprobs", "echo") else 0
    assert remaining(slow.gateway, key) == 100_000 - bill["prompt_tokens"] - unseen


async def test_cancels_do_not_get_round_the_tokens_a_minute(redis: Valkey, slow: Stack) -> None:
    """As many prompts as the limit lets in reach the engine, however soon their clients leave."""
    key = new_key(redis, tokens=5000)
    slow.sim.arm("prefill:20000", times=None)
    body = chat(LONG, stream=True, max_tokens=10)
    statuses: list[int] = []
    async with httpx.AsyncClient(timeout=60) as client:
        for _ in range(12):
            logged = len(slow.gateway.requests)
            try:
                answer = await client.post(
                    slow.gateway.url + CHAT, headers={"authorization": f"Bearer {key}"}, json=body, timeout=1.0
                )
                statuses.append(answer.status_code)
            except httpx.ReadTimeout:
                await asyncio.to_thread(until, lambda before=logged: len(slow.gateway.requests) > before)
    stats = slow.sim.stats()
    assert stats["prompt_tokens_total"] <= 5000
    assert statuses == [429] * (12 - stats["requests_total"])
    bill = await asyncio.to_thread(billed, redis, key, stats["requests_total"])
    assert stats["prompt_tokens_total"] <= bill["prompt_tokens"] <= 5000


@pytest.mark.parametrize("fields", [{"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "required", "n": 2}, {}])
async def test_a_whole_answer_is_billed_as_far_as_it_was_generated(
    redis: Valkey, slow: Stack, fields: dict[str, Any]
) -> None:
    key = new_key(redis)
    slow.sim.arm("stall@8", times=None)
    count = 8 * int(fields.get("n", 1))
    async with left_after(slow.gateway, key, chat(max_tokens=500, min_tokens=100, **fields)):
        await asyncio.to_thread(until, lambda: slow.sim.stats()["generated_tokens_total"] >= count)
    await asyncio.to_thread(until, lambda: slow.sim.stats()["running"] == 0)
    bill = await asyncio.to_thread(billed, redis, key)
    stats = slow.sim.stats()
    assert bill["cancelled"] == 1
    assert bill["prompt_tokens"] == stats["prompt_tokens_total"]
    assert bill["completion_tokens"] == stats["generated_tokens_total"] == count


async def test_all_prompts_of_one_request_are_billed(redis: Valkey, slow: Stack) -> None:
    """Also those of which the engine had not said anything yet."""
    key = new_key(redis)
    slow.sim.arm("stall@1", times=None)
    body = {"model": "sim", "prompt": [LONG] * 10, "max_tokens": 50, "stream": True}
    async with left_after(slow.gateway, key, body, TEXT):
        await asyncio.to_thread(until, lambda: slow.sim.stats()["generated_tokens_total"] >= 10)
    bill = await asyncio.to_thread(billed, redis, key)
    assert bill["prompt_tokens"] >= slow.sim.stats()["prompt_tokens_total"]


def test_a_call_is_the_same_streamed_and_whole(redis: Valkey, slow: Stack) -> None:
    """A call that is put together from a stream has the form of a whole answer's."""
    key = new_key(redis)
    body = chat("Weather?", tools=[TOOL], tool_choice="required", max_tokens=300)
    direct = httpx.post(slow.sim.url + CHAT, json=body, timeout=60).json()
    headers = {"authorization": f"Bearer {key}"}
    through = httpx.post(slow.gateway.url + CHAT, headers=headers, json=body, timeout=60).json()
    expected, got = (answer["choices"][0] for answer in (direct, through))
    assert got["finish_reason"] == expected["finish_reason"] == "tool_calls"
    assert got["message"]["content"] in (None, "")
    [call], [asked] = got["message"]["tool_calls"], expected["message"]["tool_calls"]
    assert set(call) == {"id", "type", "function"}
    assert call["id"].startswith("chatcmpl-tool-")
    assert call["type"] == "function"
    assert call["function"]["name"] == asked["function"]["name"] == "f"
    assert json.loads(call["function"]["arguments"]) == json.loads(asked["function"]["arguments"])
    assert through["usage"]["completion_tokens"] == direct["usage"]["completion_tokens"]


@pytest.fixture(scope="module")
def raw() -> Iterator[RawEngine]:
    with RawEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def broken(redis: Valkey, raw: RawEngine) -> Iterator[Gateway]:
    config = {
        "models": [
            {"id": "openai", "dialect": "openai", "upstreams": [raw.url]},
            {"id": "vllm", "upstreams": [raw.url]},
            {"id": "down", "dialect": "openai", "upstreams": ["http://127.0.0.1:1"]},
        ],
        "redis": {"url": redis.url},
        "timeouts": {"retries": 0},
        "failover": {"attempts": 1, "budget_s": 0.2},
    }
    with start_gateway(config) as gateway:
        yield gateway


ROLE = '{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
WORD = '{"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}'
NOTHING = {
    "400": response('{"error":{"message":"no","type":"invalid_request_error"}}', status=400),
    "404": response("not here", status=404, kind="text/plain"),
    "422": response('{"error":{"message":"no"}}', status=422),
    "500": response('{"error":{"message":"no"}}', status=500),
    "503": response("", status=503),
    "closed": b"",
    "breaks at once": events(),
    "breaks behind the role": events(ROLE),
    "an error first": events('{"error":{"message":"no","code":400}}', "[DONE]"),
    "an error behind the role": events(ROLE, '{"error":{"message":"no","code":500}}', "[DONE]"),
}


def bill_of(redis: Valkey, gateway: Gateway, path: str, body: dict[str, Any]) -> tuple[int, Counter[str]]:
    key = new_key(redis, tokens=50_000)
    answer = httpx.post(gateway.url + path, headers={"authorization": f"Bearer {key}"}, json=body, timeout=30)
    bill = billed(redis, key)
    assert remaining(gateway, key) == 50_000 - bill["prompt_tokens"] - bill["completion_tokens"]
    return answer.status_code, bill


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["openai", "vllm"])
@pytest.mark.parametrize("said", NOTHING)
def test_who_got_nothing_pays_nothing(
    redis: Valkey, raw: RawEngine, broken: Gateway, said: str, model: str, stream: bool
) -> None:
    raw.says(NOTHING[said])
    _, bill = bill_of(redis, broken, CHAT, chat(LONG, model=model, stream=stream))
    assert (bill["failed"], bill["prompt_tokens"], bill["completion_tokens"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(LONG, model="down")),
        (CHAT, chat(LONG, model="down", stream=True)),
        (CHAT, chat(LONG, model="down", tools=[TOOL])),
        (TEXT, {"model": "down", "prompt": LONG, "echo": True}),
        (EMBEDDINGS, {"model": "down", "input": LONG}),
    ],
)
def test_an_engine_that_is_not_there_costs_nothing(
    redis: Valkey, broken: Gateway, path: str, body: dict[str, Any]
) -> None:
    status, bill = bill_of(redis, broken, path, body)
    assert status == 502
    assert (bill["failed"], bill["prompt_tokens"]) == (1, 0)


@pytest.mark.parametrize("path", [TEXT, EMBEDDINGS])
@pytest.mark.parametrize("status", [400, 503])
def test_a_whole_answer_that_is_refused_costs_nothing(
    redis: Valkey, raw: RawEngine, broken: Gateway, path: str, status: int
) -> None:
    raw.says(response('{"error":{"message":"no"}}', status=status))
    field = "input" if path == EMBEDDINGS else "prompt"
    _, bill = bill_of(redis, broken, path, {"model": "openai", field: LONG})
    assert (bill["failed"], bill["prompt_tokens"]) == (1, 0)


def test_what_came_before_a_break_is_billed(redis: Valkey, raw: RawEngine, broken: Gateway) -> None:
    raw.says(events(ROLE, WORD, WORD))
    _, bill = bill_of(redis, broken, CHAT, chat(LONG, model="openai", stream=True))
    assert (bill["failed"], bill["completion_tokens"]) == (1, 2)
    assert bill["prompt_tokens"] > 1000, "the engine gives no figure: the estimate"


def test_what_a_drain_cuts_is_not_the_clients_doing(redis: Valkey, slow: Stack) -> None:
    """It has failed, and who got nothing pays nothing."""
    key = new_key(redis, tokens=50_000)
    slow.sim.arm("prefill:60000", times=None)
    config = {"models": [served_by(slow.sim)], "redis": {"url": redis.url}, "timeouts": {**PATIENT, "drain_s": 0.2}}
    with start_gateway(config) as gateway, ThreadPoolExecutor() as pool:
        before = slow.sim.stats()["requests_total"]
        headers = {"authorization": f"Bearer {key}"}
        url = gateway.url + CHAT
        asked = [
            pool.submit(httpx.post, url, headers=headers, json=chat(LONG, stream=stream), timeout=60)
            for stream in (True, False)
        ]
        until(lambda: slow.sim.stats()["requests_total"] == before + 2)
        gateway.process.send_signal(signal.SIGTERM)
        assert [answer.result().status_code for answer in asked] == [503, 503]
    bill = billed(redis, key, requests=2)
    assert (bill["failed"], bill["cancelled"], bill["prompt_tokens"]) == (2, 0, 0)
