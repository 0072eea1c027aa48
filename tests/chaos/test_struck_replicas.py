"""Streams over four replicas of which one is struck every two seconds: nobody notices."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tests.chaos.asks import greedy
from tests.support.crowd import Crowd
from tests.support.observed import counters, failovers, in_short, records
from tests.support.ports import free_port
from tests.support.replicas import Replica, replicas
from tests.support.stack import create_key, served_by, start_gateway
from tests.support.waiting import until

STREAMS = int(os.environ.get("STREAMS", "500"))
RATE = 10  # tokens a second of each
PER_S = 40
STALL_S = 1.0
EVERY_S = 2.0

KINDS = ("SIGKILL", "error", "stall", "end")


def strike(replica: Replica, kind: str) -> int | None:
    """How many streams it struck, where that can be told."""
    if kind == "SIGKILL":
        replica.killed(away_s=0.3)
        return None
    return replica.strike(kind)


def test_nobody_notices(say: Callable[[str], None]) -> None:
    asks, undisturbed = greedy(STREAMS, tokens=(50, 110))
    assert sum(any(ord(character) > 0x4E00 for character in answer.text) for answer in undisturbed) > STREAMS / 2
    port = free_port()
    with replicas(4, rate=RATE, spread=True) as engines:
        config = {
            "models": [served_by(*(engine.sim for engine in engines), max_model_len=32768)],
            "timeouts": {"between_tokens_s": STALL_S, "heartbeat_s": 0.5},
            "listen": {"metrics_port": port},
        }
        with start_gateway(config) as gateway:
            key = create_key(gateway)
            struck = 0
            turn = 0
            with Crowd(gateway.base_url, key, asks, per_s=PER_S) as crowd:
                due = time.monotonic() + EVERY_S
                while crowd.running:
                    time.sleep(0.05)
                    if time.monotonic() >= due:
                        due += EVERY_S
                        # Each kind comes to each replica in time.
                        struck += strike(engines[(turn + turn // 4) % 4], KINDS[turn % 4]) or 0
                        turn += 1
                answers = crowd.answers()
            broken = [answer.error for answer in answers if answer.error]
            assert broken == []
            assert [answer.same() for answer in answers] == [answer.same() for answer in undisturbed]
            assert {len(answer.heads) for answer in answers} == {1}

            until(lambda: len(gateway.requests) == STREAMS)
            log = gateway.requests
            assert {entry["outcome"] for entry in log} == {"finished"}
            found = failovers(log)
            until(lambda: len(records(gateway, "tests")) == STREAMS)
            kept = records(gateway, "tests")
            counted = counters(port)
            assert turn >= 4, "every kind was there"
            assert len(found) >= struck > STREAMS / 20
            assert sum(record["failovers"] for record in kept) == len(found)
            assert counted["cloudach_failovers_total", "sim"] == len(found)
            for kind in ("prompt", "completion"):
                shown = sum((answer.usage or {})[f"{kind}_tokens"] for answer in answers)
                assert sum(record[f"{kind}_tokens"] for record in kept) == shown
                assert counted["cloudach_tokens_total", kind, "sim"] == shown
            say(f"{STREAMS} requests, {turn} strikes, {in_short(found)}")
