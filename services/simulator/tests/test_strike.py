"""What is struck while it runs, and how a simulator ends that is told to."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import httpx
import pytest

from .conftest import CHAT, StartSim
from .sim_process import SimProcess
from .streamed import BODY, collect, events, token_ids

LONG = {"max_tokens": 500}


async def strike(sim: Any, fault: str) -> int:
    answer = await sim.http.post("/sim/strike", json={"fault": fault})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["struck"])


@pytest.mark.parametrize("fault", ["end", "close", "abort", "error", "error:nodone", "engine", "shutdown"])
async def test_all_that_runs_is_cut_at_once(start_sim: StartSim, fault: str) -> None:
    sim = await start_sim(rate=50)
    streams = [asyncio.create_task(collect(sim, "", **LONG)) for _ in range(3)]
    await sim.runs(3, tokens=3)
    assert await strike(sim, fault) == 3
    assert (await sim.stats())["running"] == 0
    for text, error in await asyncio.gather(*streams):
        told = events(text)
        ids = token_ids(told)
        assert 1 <= len(ids) < 500
        assert (error is not None) == (fault in ("close", "abort"))
        assert ("[DONE]" in told) == (fault in ("error", "engine", "shutdown"))
        assert any("error" in event for event in told if event != "[DONE]") == fault.startswith(("error", "engine"))
    stats = await sim.stats()
    assert stats["failed_total"] == 3
    assert await strike(sim, fault) == 0, "what comes later is left alone"


async def test_shut_down_as_vllm(start_sim: StartSim) -> None:
    sim = await start_sim(rate=50)
    stream = asyncio.create_task(collect(sim, "", **LONG))
    whole = asyncio.create_task(sim.chat(max_tokens=500, ignore_eos=True, stop=["never"]))
    await sim.runs(2, tokens=3)
    assert await strike(sim, "shutdown") == 2
    told = events((await stream)[0])
    (last,) = told[-3]["choices"]
    assert (last["delta"], last["finish_reason"], last["token_ids"]) == ({}, "abort", [])
    assert told[-2]["usage"]["completion_tokens"] == len(token_ids(told))
    assert told[-1] == "[DONE]"
    answer = (await whole).json()
    assert answer["choices"][0]["finish_reason"] == "abort"
    assert answer["choices"][0]["message"]["content"]


async def test_a_stall_of_what_runs(start_sim: StartSim) -> None:
    sim = await start_sim()
    undisturbed, _ = await collect(sim, "", max_tokens=40)
    await sim.http.post("/sim/config", json={"rate": 10})
    stream = asyncio.create_task(collect(sim, "", max_tokens=40))
    await sim.runs(1, tokens=3)
    assert await strike(sim, "stall:1500") == 1
    begun = time.monotonic()
    (entry, _) = (await sim.http.get("/sim/requests")).json()["data"]
    assert await strike(sim, "end") == 0, "it stands still already"
    text, error = await stream
    at_ten_a_second = (40 - entry["generated_tokens"]) / 10
    assert time.monotonic() - begun > 1.5 + at_ten_a_second - 0.5
    assert error is None
    assert token_ids(events(text)) == token_ids(events(undisturbed))


async def wake(sim: Any, **order: Any) -> int:
    answer = await sim.http.post("/sim/wake", json=order)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["woken"])


@pytest.mark.parametrize("rate", [0, 200])
@pytest.mark.parametrize("fault", ["stall@0", "stall@5", "stall@12", "stall@5:60000"])
async def test_what_is_stalled_is_woken(start_sim: StartSim, fault: str, rate: float) -> None:
    sim = await start_sim(rate=rate)
    undisturbed, _ = await collect(sim, "")
    stream = asyncio.create_task(collect(sim, fault))
    while await wake(sim) == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    text, error = await stream
    assert error is None
    assert token_ids(events(text)) == token_ids(events(undisturbed))
    assert (await sim.stats())["finished_total"] == 2
    assert await wake(sim) == 0


@pytest.mark.parametrize("rate", [0, 200])
async def test_step_by_step(start_sim: StartSim, rate: float) -> None:
    """And not by itself in between."""
    sim = await start_sim(rate=rate)
    stream = asyncio.create_task(collect(sim, "stall@2"))
    while (await sim.stats())["sent_tokens_total"] < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for sent in (3, 4):
        assert await wake(sim, steps=1) == 1
        await asyncio.sleep(0.05)
        assert (await sim.stats())["sent_tokens_total"] == sent
    assert await wake(sim, steps=100) == 1
    text, _ = await stream
    assert len(token_ids(events(text))) == 12
    assert events(text)[-1] == "[DONE]"


@pytest.mark.parametrize("order", [{"steps": 0}, {"steps": "x"}, [1]])
async def test_a_bad_order_wakes_nothing(start_sim: StartSim, order: Any) -> None:
    sim = await start_sim()
    assert (await sim.http.post("/sim/wake", json=order)).status_code == 400


@pytest.mark.parametrize("order", [{}, {"fault": 5}, {"fault": "x"}, {"fault": "http:500"}, {"fault": "crlf"}, [1]])
async def test_only_a_cut_can_strike(start_sim: StartSim, order: Any) -> None:
    sim = await start_sim()
    response = await sim.http.post("/sim/strike", json=order)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "fault")


@pytest.mark.parametrize("end", ["shutdown", "close"])
def test_a_drain(end: str) -> None:
    with SimProcess("--rate", "100", "--drain-s", "5", "--drain-end", end) as sim:
        told: dict[str, list[Any]] = {}

        def read(name: str, tokens: int) -> None:
            text = ""
            try:
                with httpx.stream("POST", sim.url + CHAT, json={**BODY, "max_tokens": tokens}, timeout=20) as answer:
                    for part in answer.iter_text():
                        text += part
            except httpx.RemoteProtocolError:
                text += "data: {}\n\n"
            told[name] = events(text)

        readers = [threading.Thread(target=read, args=args) for args in (("short", 30), ("long", 1000))]
        for reader in readers:
            reader.start()
        while httpx.get(f"{sim.url}/sim/stats", timeout=20).json()["running"] < 2:
            time.sleep(0.01)
        assert sim._process is not None
        sim._process.send_signal(signal.SIGTERM)
        while httpx.get(f"{sim.url}/health", timeout=20).status_code == 200:
            time.sleep(0.01)
        refused = httpx.post(sim.url + CHAT, json=BODY, timeout=20)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, 503)
        assert sim.wait(30) == 0
        for reader in readers:
            reader.join()
        assert len(token_ids(told["short"])) == 30
        assert told["short"][-1] == "[DONE]"
        assert 50 <= len(token_ids(told["long"])) < 1000
        assert told["long"][-1] == ("[DONE]" if end == "shutdown" else {})
