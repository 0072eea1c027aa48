"""A client that goes away stops the engine, and pays for what was generated until then, once."""

from __future__ import annotations

import asyncio
import random

import httpx
import pytest

from tests.data_plane.conftest import Stack, chat
from tests.support.stack import Simulator, create_key, used
from tests.support.waiting import until


async def test_a_hundred_streams_cut_at_random_points(stack: Stack, sim: Simulator) -> None:
    key = create_key(stack.gateway)
    seen = [0] * 100

    async def cut(client: httpx.AsyncClient, number: int) -> None:
        after = random.randint(0, 10)
        async with client.stream(
            "POST",
            f"{stack.gateway.base_url}/chat/completions",
            headers={"authorization": f"Bearer {key}"},
            json=chat(f"number {number}", stream=True, max_tokens=4000, ignore_eos=True),
        ) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if after == 0:
                    break
                if line.startswith("data: ") and '"content":""' not in line:
                    seen[number] += 1
                    if seen[number] >= after:
                        break

    sim.configure(rate=5)  # a tick is longer than it takes to be told, on however busy a machine
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:
        await asyncio.gather(*(cut(client, number) for number in range(100)))
    until(lambda: sim.stats()["running"] == 0)
    sim.configure(rate=200)
    stats = sim.stats()
    assert (stats["requests_total"], stats["aborted_total"]) == (100, 100)
    until(lambda: used(stack.gateway, key).get("cancelled", 0) == 100)
    billed = used(stack.gateway, key)
    generated = stats["generated_tokens_total"]
    assert sum(seen) <= billed["completion_tokens"] <= generated
    assert generated - billed["completion_tokens"] <= 200, "at most a tick or two of each stream was in flight"
    assert billed["requests"] == 100


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["hang", "prefill:20000", None])
async def test_also_before_the_first_token_and_without_a_stream(
    stack: Stack, sim: Simulator, fault: str | None, stream: bool
) -> None:
    if fault is not None:
        sim.arm(fault)
    else:
        sim.configure(rate=5)

    def is_there() -> bool:
        stats = sim.stats()
        if fault == "hang":
            return stats["refused_total"] == 1
        return stats["running"] == 1 and stats["generated_tokens_total"] >= (0 if fault else 8)

    logged = len(stack.gateway.requests)
    async with httpx.AsyncClient(timeout=60) as client:
        asked = asyncio.create_task(
            client.post(
                f"{stack.gateway.base_url}/chat/completions",
                headers={"authorization": f"Bearer {stack.key}"},
                json=chat(stream=stream, max_tokens=4000, ignore_eos=True),
            )
        )
        await asyncio.to_thread(until, is_there)
        asked.cancel()  # closes the connection
        await asyncio.gather(asked, return_exceptions=True)
        assert asked.cancelled()
    until(lambda: sim.stats()["running"] == 0, within_s=15)
    sim.configure(rate=200)
    until(lambda: len(stack.gateway.requests) > logged)
    entry = stack.logged(outcome="cancelled")
    generated = sim.stats()["generated_tokens_total"]
    assert generated - 3 <= entry["completion_tokens"] <= generated
    if fault is None:
        assert entry["completion_tokens"] >= 5, "what was generated for a whole answer is known too"
    stack.still_serves()


def test_a_finished_answer_is_no_cancel(stack: Stack, sim: Simulator) -> None:
    for _ in range(20):  # the client closes the moment it has read [DONE]
        answer = stack.post(json=chat(stream=True, max_tokens=3), headers={"connection": "close"})
        assert answer.content.endswith(b"[DONE]\n\n")
    until(lambda: sim.stats()["running"] == 0)
    stack.logged(request_id=answer.headers["x-request-id"])
    assert {entry["outcome"] for entry in stack.gateway.requests[-20:]} == {"finished"}
    assert sim.stats()["aborted_total"] == 0
