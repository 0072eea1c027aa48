"""A request that ends its engines is stopped, and others that were there go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

import httpx
import pytest

from tests.data_plane.conftest import chat
from tests.data_plane.failover.fleet import CHAT, SPLIT, Fleet, begun
from tests.data_plane.streamed import Streamed
from tests.support.stack import Simulator
from tests.support.waiting import until


def user_fault(sims: Sequence[Simulator], fault: str, user: str) -> None:
    for sim in sims:
        httpx.post(f"{sim.url}/sim/faults", json={"fault": fault, "times": None, "user": user}).raise_for_status()


def hits(sims: Sequence[Simulator], fault: str) -> int:
    return sum(request["fault"] == fault.partition("@")[0] for sim in sims for request in sim.requests())


@pytest.mark.parametrize("fault", ["abort@0", "engine@0", "abort@3", "error@3:nodone", "engine@3", "end@1"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_ends_engines_is_stopped_after_two(three: Fleet, fault: str, stream: bool) -> None:
    """The fault goes where the request goes."""
    time.sleep(1.1)  # what died under another test is not the same death
    user_fault(three.sims, fault, "killer")
    body = chat("Kill", max_tokens=40, ignore_eos=True, user="killer", stream=stream)
    answer = three.post(CHAT, body)
    if stream and not fault.endswith("@0"):
        assert answer.status_code == 200
        assert Streamed(answer.content).error is not None
    else:
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_error"
        assert answer.headers["x-should-retry"] == "false", "the SDK would send it again"
    assert hits(three.sims, fault) == 2
    entry = three.logged(answer.headers["x-request-id"])
    assert entry["cause"].endswith("given up: the request ended two engines")


@pytest.mark.parametrize("fault", ["engine@0", "engine@3"])
def test_others_go_on_when_a_request_ends_their_engines(four: Fleet, fault: str) -> None:
    bodies = [chat(f"Innocent {n}", max_tokens=300, ignore_eos=True) for n in range(9)]
    for sim in four.sims:
        sim.configure(rate=0)
    expected = [four.plain(CHAT, body) for body in bodies]
    user_fault(four.sims, fault, "killer")
    for sim in four.sims:
        sim.configure(rate=60)
    got: dict[int, Streamed] = {}

    def read(number: int) -> None:
        got[number] = four.stream(CHAT, bodies[number])

    readers = [threading.Thread(target=read, args=(number,)) for number in range(9)]
    for reader in readers:
        reader.start()
    until(
        lambda: (
            sum(sim.stats()["running"] for sim in four.sims) == 9
            and all(begun(sim, streams=0, tokens=15) for sim in four.sims)
        )
    )
    killed = four.post(CHAT, chat("Kill", max_tokens=40, ignore_eos=True, user="killer", stream=True))
    for reader in readers:
        reader.join(40)
    for sim in four.sims:
        sim.configure(rate=300)
    assert killed.status_code == 502 or Streamed(killed.content).error is not None
    assert 2 <= hits(four.sims, fault) <= 3
    assert [got[number].error for number in range(9)] == [None] * 9
    assert [got[number].told() for number in range(9)] == [each.told() for each in expected]


def test_who_is_lost_with_others_is_not_taken_for_the_cause(three: Fleet) -> None:
    """Two engines end under the same streams before these have got far anywhere."""
    bodies = [chat(f"Unlucky {n}", max_tokens=60, ignore_eos=True) for n in range(6)]
    expected = [three.plain(CHAT, body) for body in bodies]
    for sim in three.sims:
        sim.configure(rate=8)
    got: dict[int, Streamed] = {}

    def read(number: int) -> None:
        got[number] = three.stream(CHAT, bodies[number])

    readers = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for reader in readers:
        reader.start()
    # Two tokens each, twice.
    for sim in three.sims[:2]:
        until(partial(begun, sim, streams=2))
        sim.strike("engine")
    for sim in three.sims:
        sim.configure(rate=200)
    for reader in readers:
        reader.join(50)
    assert [got[number].error for number in range(6)] == [None] * 6, [
        e.get("cause") for e in three.gateway.requests[-6:]
    ]
    assert [got[number].told() for number in range(6)] == [each.told() for each in expected]


def test_an_engine_that_was_dead_before_is_no_victim(three: Fleet) -> None:
    """vLLM's HTTP server outlives its engine, has nothing to do, and is asked first."""
    body = chat(SPLIT, max_tokens=80, ignore_eos=True)
    expected = three.plain(CHAT, body)
    for sim in three.sims:
        sim.configure(rate=10)
    results: list[Streamed] = []
    readers = [threading.Thread(target=lambda: results.append(three.stream(CHAT, body))) for _ in range(2)]
    for reader in readers:
        reader.start()
    until(lambda: sorted(sim.stats()["running"] for sim in three.sims) == [0, 1, 1])
    idle = next(sim for sim in three.sims if sim.stats()["running"] == 0)
    busy = next(sim for sim in three.sims if sim.stats()["running"] == 1)
    httpx.post(f"{idle.url}{CHAT}", json={**body, "stream": True}, headers={"x-sim-fault": "engine@1"})
    until(lambda: begun(busy))
    assert busy.strike("end") == 1
    for sim in three.sims:
        sim.configure(rate=300)
    for reader in readers:
        reader.join(30)
    assert [one.error for one in results] == [None, None]
    assert [one.told() for one in results] == [expected.told()] * 2
    assert idle.stats()["refused_total"] >= 1, "it was asked"
