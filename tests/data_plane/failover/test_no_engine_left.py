"""The search for another engine: how long it goes on, what the client hears meanwhile, and what ends it."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial

import httpx
import pytest

from tests.data_plane.conftest import chat
from tests.data_plane.failover.fleet import CHAT, COMPLETIONS, SPLIT, asking, begun, fleet_of
from tests.data_plane.streamed import Streamed
from tests.support.ports import free_port
from tests.support.stack import Simulator, start_sim
from tests.support.waiting import until


def test_no_engine_is_left() -> None:
    """The client hears heart-beats while one is sought, then the error frame; a whole answer gets its status."""
    with start_sim(rate=60, model="sim") as one, start_sim(rate=60, model="sim") as two:
        config = {"timeouts": {"heartbeat_s": 0.4}, "failover": {"budget_s": 3.0}}
        with fleet_of([one, two], **config) as fleet:
            got: list[Streamed] = []
            whole: list[httpx.Response] = []
            body = chat(max_tokens=900, ignore_eos=True)
            readers = [
                threading.Thread(target=lambda: got.append(fleet.stream(CHAT, body))),
                threading.Thread(target=lambda: whole.append(fleet.post(CHAT, body))),
            ]
            for reader in readers:
                reader.start()
            until(lambda: one.stats()["running"] + two.stats()["running"] == 2)
            two.kill()
            # Both have got on at the one that is left: its end is the first loss of each, and not two of a suspect.
            until(lambda: begun(one, streams=2, tokens=20))
            killed = time.monotonic()
            one.kill()
            for reader in readers:
                reader.join(40)
            waited_s = time.monotonic() - killed
            assert got[0].error is not None
            assert got[0].error["code"] == "upstream_error"
            assert waited_s >= 0.95 * 3.0  # the last twentieth is not begun
            assert 3 <= got[0].comments <= waited_s / 0.4  # 7 where a machine has the time
            assert (whole[0].status_code, whole[0].json()["error"]["code"]) == (502, "upstream_error")
            until(lambda: len(fleet.gateway.requests) == 2)
            for entry in fleet.gateway.requests:
                assert entry["cause"].endswith("given up: no time is left")
                assert (entry["outcome"], entry["code"]) == ("failed", "upstream_error")
                assert entry["completion_tokens"] > 10


def test_attempts_are_bounded(engines: list[Simulator]) -> None:
    config = {"timeouts": {"first_token_s": 2.0}, "failover": {"attempts": 3, "budget_s": 40}}
    with fleet_of(engines[:3], **config) as fleet:
        fleet.reset()
        for sim in fleet.sims:
            sim.arm("shutdown@9")
            sim.arm("stall@0", None)
        got = fleet.stream(CHAT, chat(SPLIT, max_tokens=40, ignore_eos=True))
        assert got.error is not None
        entry = fleet.logged()
        assert entry["cause"].endswith("given up: no attempt is left")
        assert fleet.asked() == 1 + len(entry.get("failovers", ())) + 3


def test_an_engine_that_hangs_is_passed_by(engines: list[Simulator]) -> None:
    """It takes the request and never says a word of the answer; another one does."""
    with fleet_of(engines[:3], timeouts={"first_token_s": 2.0}) as fleet:
        body = chat(SPLIT, max_tokens=40)
        expected = fleet.plain(CHAT, body)
        for sim in fleet.sims:
            sim.arm("end@9")
            sim.arm("stall@0")
        # Whichever comes first breaks; then an engine is told to hang until one is left that does not.
        got = fleet.stream(CHAT, body)
        assert got.error is None, fleet.logged()
        assert got.told() == expected.told()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_the_only_engine_is_replaced(path: str) -> None:
    """Its successor comes to the same address. How long an answer may become was asked while there was an engine."""
    port = free_port()
    body = asking(path, temperature=0, **({} if path == CHAT else {"max_tokens": 120}))
    got: list[Streamed] = []
    with start_sim(rate=1000, model="sim", port=port) as one, fleet_of([one]) as fleet:
        expected = fleet.plain(path, body)
        one.configure(rate=20)
        reader = threading.Thread(target=lambda: got.append(fleet.stream(path, body)))
        reader.start()
        until(partial(begun, one, tokens=20))
        one.kill()
        time.sleep(0.5)
        with start_sim(rate=1000, model="sim", port=port):
            reader.join(30)
        assert got[0].error is None, fleet.gateway.requests[-1]["cause"]
        assert got[0].told() == expected.told()
        assert len(fleet.logged()["failovers"]) == 1


def test_heartbeats_while_another_engine_begins(engines: list[Simulator]) -> None:
    with fleet_of(engines[:2], timeouts={"heartbeat_s": 0.4}) as fleet:
        body = chat(SPLIT, max_tokens=40)
        expected = fleet.plain(CHAT, body)
        for sim in fleet.sims:
            sim.arm("end@9")
            sim.arm("stall@0")
        began, read, woken = time.monotonic(), b"", 0
        headers = {"authorization": f"Bearer {fleet.key}"}
        url = fleet.gateway.url + CHAT
        with httpx.stream("POST", url, headers=headers, json={**body, "stream": True}, timeout=30) as answer:
            fleet.last_id = answer.headers["x-request-id"]
            # One engine breaks off, the other too, and then the first takes its time.
            for part in answer.iter_raw():
                read += part
                if not woken and read.count(b": keep-alive\n\n") >= 3:
                    woken = fleet.wake()
        got = Streamed(read)
        assert got.told() == expected.told()
        assert 3 <= got.comments <= (time.monotonic() - began) / 0.4
        assert fleet.logged()["heartbeats"] == got.comments


def test_a_drain_ends_the_search_for_an_engine() -> None:
    with (
        start_sim(rate=60, model="sim", port=free_port()) as one,
        fleet_of([one], timeouts={"drain_s": 1.0}, failover={"budget_s": 30.0}) as fleet,
    ):
        got: list[Streamed] = []
        reader = threading.Thread(target=lambda: got.append(fleet.stream(CHAT, chat(max_tokens=900, ignore_eos=True))))
        reader.start()
        until(lambda: one.stats()["generated_tokens_total"] > 10)
        one.kill()
        fleet.gateway.process.send_signal(signal.SIGTERM)
        reader.join(40)
        assert fleet.gateway.process.wait(30) == 0
        assert got[0].error is not None
        assert got[0].error["code"] == "server_is_overloaded"
        assert fleet.gateway.requests[-1]["outcome"] == "failed"
