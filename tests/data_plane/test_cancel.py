"""A client that goes away stops the engine, and pays for what was generated until then, once."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Callable

import httpx
import pytest

from tests.data_plane.conftest import Stack, chat
from tests.support.processes import BIN
from tests.support.stack import Simulator, create_key


def until(condition: Callable[[], bool], *, seconds: float) -> float:
    """Seconds until `condition` held; fails when it did not in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - began


def used_today(stack: Stack, key: str) -> dict[str, int]:
    command = [BIN / "cloudach", "keys", "show", key, "--config", stack.gateway.config_file, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    usage: dict[str, int] = httpx.Response(200, text=done.stdout).json()["used_today"]
    return usage


async def test_a_hundred_streams_cut_at_random_points(stack: Stack, sim: Simulator) -> None:
    key = create_key(stack.gateway)
    seen = [0] * 100

    async def cut(client: httpx.AsyncClient, number: int) -> None:
        after = random.randint(0, 15)
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

    sim.configure(rate=20)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:
        await asyncio.gather(*(cut(client, number) for number in range(100)))
    until(lambda: sim.stats()["running"] == 0, seconds=1.0)
    sim.configure(rate=200)
    stats = sim.stats()
    assert (stats["requests_total"], stats["aborted_total"]) == (100, 100)
    until(lambda: used_today(stack, key).get("cancelled", 0) == 100, seconds=10)
    billed = used_today(stack, key)
    generated = stats["generated_tokens_total"]
    assert sum(seen) <= billed["completion_tokens"] <= generated
    assert generated - billed["completion_tokens"] <= 200, "at most a tick or two of each stream was in flight"
    assert billed["requests"] == 100


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["hang", "prefill:20000", None])
def test_also_before_the_first_token_and_without_a_stream(
    stack: Stack, sim: Simulator, fault: str | None, stream: bool
) -> None:
    if fault is not None:
        sim.arm(fault)
    else:
        sim.configure(rate=20)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{stack.gateway.base_url}/chat/completions",
            headers={"authorization": f"Bearer {stack.key}"},
            json=chat(stream=stream, max_tokens=4000, ignore_eos=True),
            timeout=0.5,
        ) if not stream or fault else _read_for_half_a_second(stack)
    until(lambda: sim.stats()["running"] == 0, seconds=1.0)
    sim.configure(rate=200)
    entry = stack.logged(outcome="cancelled")
    generated = sim.stats()["generated_tokens_total"]
    assert generated - 3 <= entry["completion_tokens"] <= generated
    if fault is None:
        assert entry["completion_tokens"] >= 5, "what was generated for a whole answer is known too"
    stack.still_serves()


def _read_for_half_a_second(stack: Stack) -> None:
    began = time.monotonic()
    with httpx.stream(
        "POST",
        f"{stack.gateway.base_url}/chat/completions",
        headers={"authorization": f"Bearer {stack.key}"},
        json=chat(stream=True, max_tokens=4000, ignore_eos=True),
    ) as answer:
        for _ in answer.iter_raw():
            if time.monotonic() - began > 0.5:
                raise httpx.ReadTimeout("enough")


def test_a_finished_answer_is_no_cancel(stack: Stack, sim: Simulator) -> None:
    for _ in range(20):  # the client closes the moment it has read [DONE]
        answer = stack.post(json=chat(stream=True, max_tokens=3), headers={"connection": "close"})
        assert answer.content.endswith(b"[DONE]\n\n")
    until(lambda: sim.stats()["running"] == 0, seconds=1.0)
    stack.logged(request_id=answer.headers["x-request-id"])
    assert {entry["outcome"] for entry in stack.gateway.requests[-20:]} == {"finished"}
    assert sim.stats()["aborted_total"] == 0
