"""What can go wrong on demand, seen from the client's side."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

import httpx
import pytest
from cloudach_simulator import faults

from .conftest import CHAT, StartSim
from .sim_process import SimProcess
from .streamed import BODY, collect, events, token_ids


@pytest.mark.parametrize("at", [0, 1, 5, 12])
@pytest.mark.parametrize("kind", ["end", "close", "abort", "error", "error:nodone"])
@pytest.mark.parametrize("rate", [0.0, 500.0])
async def test_a_cut_comes_after_exactly_that_many_tokens(start_sim: StartSim, kind: str, at: int, rate: float) -> None:
    sim = await start_sim(rate=rate)
    undisturbed, _ = await collect(sim, "")
    name, _, argument = kind.partition(":")
    text, error = await collect(sim, f"{name}@{at}{':' + argument if argument else ''}")
    told = events(text)
    assert token_ids(told) == token_ids(events(undisturbed))[:at]
    if name in ("close", "abort"):
        assert isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
        assert isinstance(error, httpx.RemoteProtocolError) == (name == "close")
    else:
        assert error is None
    frame = [event["error"] for event in told if "error" in event and isinstance(event, dict)]
    assert ("[DONE]" in told) == (kind == "error")
    assert bool(frame) == (name == "error")
    if frame:
        assert frame == [
            {
                "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
                "type": "InternalServerError",
                "param": None,
                "code": 500,
            }
        ]
    (entry, _) = (await sim.http.get("/sim/requests")).json()["data"]
    assert (entry["generated_tokens"], entry["state"]) == (at, "failed")


@pytest.mark.parametrize("rate", [0.0, 1000.0])
async def test_a_stall_lasts_as_long_as_asked_and_then_all_goes_on(start_sim: StartSim, rate: float) -> None:
    sim = await start_sim(rate=rate)
    undisturbed, _ = await collect(sim, "")
    for at in (0, 1, 4, 12):
        begun = time.monotonic()
        text, error = await collect(sim, f"stall@{at}:250")
        assert 0.2 < time.monotonic() - begun < 20
        assert error is None
        assert [e.get("usage") for e in events(text)[:-1]] == [e.get("usage") for e in events(undisturbed)[:-1]]
        assert token_ids(events(text)) == token_ids(events(undisturbed))


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("rate", [0.0, 1000.0])
async def test_a_stall_for_ever_ends_with_the_client(start_sim: StartSim, at: int, rate: float) -> None:
    sim = await start_sim(rate=rate)
    stalled = asyncio.create_task(collect(sim, f"stall@{at}"))
    await sim.runs(1, tokens=at)
    await asyncio.sleep(0.3)
    assert not stalled.done()
    stalled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stalled
    stats = await sim.settled()
    assert (stats["aborted_total"], stats["generated_tokens_total"]) == (1, at)


@pytest.mark.parametrize("stream", [True, False])
async def test_no_answer_at_all(start_sim: StartSim, stream: bool) -> None:
    sim = await start_sim()
    headers = {"x-sim-fault": "hang"}
    with pytest.raises(httpx.ReadTimeout):
        body = {**BODY, "stream": stream, "stream_options": None}
        await sim.http.post(CHAT, json=body, headers=headers, timeout=httpx.Timeout(20, read=0.2))
    with pytest.raises(httpx.ReadError):
        await sim.chat(headers={"x-sim-fault": "refuse"})


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("http:500", 500, "text/plain; charset=utf-8"),
        ("http:503", 503, "text/plain; charset=utf-8"),
        ("http:429:json", 429, "application/json"),
    ],
)
async def test_a_status_before_the_first_byte(start_sim: StartSim, fault: str, status: int, kind: str) -> None:
    sim = await start_sim()
    response = await sim.chat(headers={"x-sim-fault": fault})
    assert (response.status_code, response.headers["content-type"]) == (status, kind)
    assert (await sim.stats())["requests_total"] == 0


async def test_a_slow_prefill_sends_headers_first(start_sim: StartSim) -> None:
    sim = await start_sim()
    async with sim.http.stream("POST", CHAT, json=BODY, headers={"x-sim-fault": "prefill:600000"}) as response:
        assert response.status_code == 200
        assert (await sim.stats())["generated_tokens_total"] == 0
    begun = time.monotonic()
    async with sim.http.stream("POST", CHAT, json=BODY, headers={"x-sim-fault": "prefill:300"}) as response:
        await anext(response.aiter_bytes())
        assert 0.28 < time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "fault", ["split:1", "split:7", "split:random", "split:random:3", "crlf", "comment:hi", "multiline"]
)
async def test_odd_forms_carry_the_same_events(start_sim: StartSim, fault: str) -> None:
    sim = await start_sim()
    plain, _ = await collect(sim, "")
    odd, error = await collect(sim, fault)
    assert error is None

    def known(told: list[Any]) -> list[Any]:
        return [e if e == "[DONE]" else {k: v for k, v in e.items() if k not in ("id", "created")} for e in told]

    assert known(events(odd)) == known(events(plain))
    assert ("\r\n\r\n" in odd) == (fault == "crlf")
    assert (": hi\n" in odd) == fault.startswith("comment")
    assert ('\ndata: "object"' in odd) == (fault == "multiline")


async def test_split_pieces_really_travel_in_pieces(start_sim: StartSim) -> None:
    sim = await start_sim()
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    body = json.dumps({**BODY, "max_tokens": 2}).encode()
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-sim-fault: split:3\r\n"
        b"content-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
    )
    await reader.readuntil(b"\r\n\r\n")
    sizes = []
    while size := int(await reader.readline(), 16):
        sizes.append(size)
        await reader.readexactly(size + 2)
    writer.close()
    assert set(sizes) <= {1, 2, 3}
    assert len(sizes) > 100


async def test_a_huge_event_is_one_event(start_sim: StartSim) -> None:
    sim = await start_sim()
    text, error = await collect(sim, "huge@3:1000000")
    told = events(text)
    assert error is None
    assert [len(e.get("padding", "")) for e in told[:-1]] == [0, 0, 0, 1_000_000, *[0] * (len(told) - 5)]


async def test_faults_of_a_whole_answer(start_sim: StartSim) -> None:
    sim = await start_sim()
    failed = await sim.chat(max_tokens=9, ignore_eos=True, headers={"x-sim-fault": "error@4"})
    assert (failed.status_code, failed.json()["error"]["type"]) == (500, "InternalServerError")
    for fault in ("close@4", "abort@4", "end@4"):
        with pytest.raises(httpx.HTTPError):
            await sim.chat(max_tokens=9, headers={"x-sim-fault": fault})
    late = await sim.chat(max_tokens=9, ignore_eos=True, headers={"x-sim-fault": "stall@4:100"})
    assert late.json()["usage"]["completion_tokens"] == 9
    entries = (await sim.http.get("/sim/requests")).json()["data"]
    assert [e["generated_tokens"] for e in entries] == [9, 4, 4, 4, 4]
    assert [e["sent_tokens"] for e in entries] == [9, 0, 0, 0, 0]


async def test_a_dead_engine_takes_all_streams_along_and_refuses_until_a_reset(start_sim: StartSim) -> None:
    sim = await start_sim(rate=20)
    others = [asyncio.create_task(collect(sim, "", max_tokens=500)) for _ in range(3)]
    whole = asyncio.create_task(sim.chat(max_tokens=500, ignore_eos=True))
    await sim.runs(4)
    text, _ = await collect(sim, "engine@2")
    for other in [text, *(t for t, _ in await asyncio.gather(*others))]:
        assert events(other)[-2]["error"]["code"] == 500
        assert events(other)[-1] == "[DONE]"
    assert (await whole).status_code == 500
    later = await sim.chat()
    assert (later.status_code, later.json()["error"]["code"]) == (500, 500)
    assert (await sim.http.get("/v1/models")).status_code == 200
    assert (await sim.http.get("/health")).status_code == 503
    await sim.http.post("/sim/reset")
    assert (await sim.chat(max_tokens=1)).status_code == 200


async def test_faults_by_the_body_and_armed_for_some_requests(start_sim: StartSim) -> None:
    sim = await start_sim()
    assert (await sim.chat(sim_fault="http:503")).status_code == 503
    await sim.http.post("/sim/faults", json={"fault": "http:500", "times": 2})
    assert [(await sim.chat(max_tokens=1)).status_code for _ in range(4)] == [500, 500, 200, 200]
    await sim.http.post("/sim/faults", json={"fault": "http:429", "probability": 0.5})
    statuses = [(await sim.chat(max_tokens=1)).status_code for _ in range(60)]
    assert 10 < statuses.count(429) < 50
    # A request's own fault, also none, goes before the armed ones.
    assert {(await sim.chat(max_tokens=1, headers={"x-sim-fault": ""})).status_code for _ in range(20)} == {200}
    assert len((await sim.http.get("/sim/faults")).json()["data"]) == 1
    await sim.http.delete("/sim/faults")
    assert {(await sim.chat(max_tokens=1)).status_code for _ in range(20)} == {200}


async def test_a_fault_for_one_user(start_sim: StartSim) -> None:
    sim = await start_sim()
    await sim.http.post("/sim/faults", json={"fault": "http:503", "user": "unlucky"})
    asked = [None, "unlucky", "lucky", "unlucky"]
    assert [(await sim.chat(max_tokens=1, user=user)).status_code for user in asked] == [200, 503, 200, 503]


@pytest.mark.parametrize(
    "order", [{}, {"fault": 5}, {"fault": "x"}, {"fault": "end@1", "times": "a"}, {"fault": "end@1", "user": 1}, [1]]
)
async def test_bad_orders_are_told(start_sim: StartSim, order: Any) -> None:
    sim = await start_sim()
    response = await sim.http.post("/sim/faults", json=order)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "fault")


@pytest.mark.parametrize(
    "text",
    ["nonsense", "die@x", "http", "http:abc", "http:500:xml", "split", "split:0x", "stall@1:soon", "huge@1", "end@1:x"],
)
def test_bad_faults_are_refused(text: str) -> None:
    with pytest.raises(faults.BadFault):
        faults.parse(text)


def test_faults_combine() -> None:
    plan = faults.parse("prefill:20, end@5,crlf , split:3")
    assert (plan.prefill_ms, plan.cut, plan.at, plan.crlf, plan.split) == (20, "end", 5, True, 3)
    assert faults.parse("") is faults.NOTHING


def test_a_process_that_dies_delivers_its_tokens_first() -> None:
    with SimProcess("--rate", "200") as sim:
        told = b""
        with (
            pytest.raises(httpx.HTTPError),
            httpx.stream("POST", sim.url + CHAT, json=BODY, headers={"x-sim-fault": "die@5"}, timeout=20) as response,
        ):
            for part in response.iter_raw():
                told += part
        assert len(token_ids(events(told.decode()))) == 5
        assert sim.wait(20) == -signal.SIGKILL
