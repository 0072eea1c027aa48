"""What the simulator counts, above all for clients that go away."""

from __future__ import annotations

import asyncio
import random
import time

import httpx
from cloudach_simulator.ledger import Entry, Ledger

from .conftest import CHAT, Sim, StartSim


async def cut_stream(sim: Sim, number: int, after_s: float) -> int:
    """Read a stream for a while, then drop it; gives the tokens that came."""
    body = {
        "messages": [{"role": "user", "content": f"number {number}"}],
        "stream": True,
        "ignore_eos": True,
        "max_tokens": 5000,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    seen = 0
    try:
        async with sim.http.stream("POST", CHAT, json=body, headers={"x-request-id": f"cut-{number}"}) as response:
            async with asyncio.timeout(after_s):
                async for line in response.aiter_lines():
                    if '"completion_tokens":' in line:
                        seen = int(line.split('"completion_tokens":')[1].split(",")[0].rstrip("}"))
    except TimeoutError:
        pass
    return seen


async def test_streams_cut_at_random_points_stop_at_once_and_are_counted_to_the_token(start_sim: StartSim) -> None:
    sim = await start_sim(rate=100)
    sim.http = httpx.AsyncClient(base_url=sim.url, limits=httpx.Limits(max_connections=None), timeout=20)
    chance = random.Random(5)
    seen = await asyncio.gather(*(cut_stream(sim, i, chance.uniform(0.2, 1.5)) for i in range(100)))
    stats = await sim.settled()
    assert stats["aborted_total"] == 100
    entries = {e["id"]: e for e in (await sim.http.get("/sim/requests?limit=200")).json()["data"]}
    assert sum(e["generated_tokens"] for e in entries.values()) == stats["generated_tokens_total"]
    for number, count in enumerate(seen):
        # Whatever was on its way when the client went: a quarter of a second's, and of a busy machine's less.
        assert 0 <= entries[f"cut-{number}"]["generated_tokens"] - count <= 25
    await asyncio.sleep(0.05)
    assert (await sim.stats())["generated_tokens_total"] == stats["generated_tokens_total"]


async def test_a_client_that_goes_before_the_first_token_costs_none(start_sim: StartSim) -> None:
    sim = await start_sim(rate=50, ttft_ms=60_000)
    assert await cut_stream(sim, 1, 0.2) == 0
    stats = await sim.settled()
    assert (stats["aborted_total"], stats["generated_tokens_total"]) == (1, 0)


async def test_a_whole_answers_generation_takes_its_time_and_stops_with_the_client(start_sim: StartSim) -> None:
    sim = await start_sim(rate=100)
    begun = time.monotonic()
    response = await sim.chat(max_tokens=30, ignore_eos=True)
    assert 0.25 < time.monotonic() - begun < 20
    assert response.json()["usage"]["completion_tokens"] == 30
    going = asyncio.create_task(sim.chat(max_tokens=5000, ignore_eos=True))
    await sim.runs(1, tokens=30)
    generated = sim.simulator.ledger.stats()["generated_tokens_total"]
    going.cancel()
    stats = await sim.settled()
    assert going.cancelled()
    assert stats["aborted_total"] == 1
    assert 60 <= generated <= stats["generated_tokens_total"] <= generated + 20


async def test_requests_can_be_asked_for_one_by_one(start_sim: StartSim) -> None:
    sim = await start_sim()
    for _ in range(2):
        await sim.chat(max_tokens=4, ignore_eos=True, headers={"x-request-id": "same/id"})
    await sim.chat(max_tokens=4, headers={"x-request-id": "other"})
    entry = (await sim.http.get("/sim/requests/same%2Fid")).json()
    assert (entry["id"], entry["state"], entry["generated_tokens"], entry["sent_tokens"]) == (
        "same/id",
        "finished",
        4,
        4,
    )
    assert entry["started"] <= entry["ended"]
    assert len((await sim.http.get("/sim/requests?id=same%2Fid")).json()["data"]) == 2
    assert len((await sim.http.get("/sim/requests?limit=1")).json()["data"]) == 1
    assert (await sim.http.get("/sim/requests/none")).status_code == 404
    assert (await sim.http.get("/sim/requests?limit=x")).status_code == 400
    await sim.http.post("/sim/reset")
    assert (await sim.stats())["requests_total"] == 0


def test_the_ledgers_memory_is_bounded() -> None:
    ledger = Ledger(keep=10)
    for number in range(100):
        ledger.close(ledger.open(Entry(str(number), "/", "m", True, 3, None)), "finished")
    assert [e["id"] for e in ledger.requests(1000)] == [str(n) for n in range(99, 89, -1)]
    assert ledger.stats()["prompt_tokens_total"] == 300
