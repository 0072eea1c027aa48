"""Replicas of Ray Serve are killed in mid-stream, twice: HAProxy in front of them, the gateway sees one URL."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.chaos.asks import greedy
from tests.support.crowd import Crowd
from tests.support.inference import replica_pids, start_ray_sim
from tests.support.observed import counters, failovers, in_short
from tests.support.ports import free_port
from tests.support.replicas import MODEL
from tests.support.stack import create_key, start_gateway
from tests.support.waiting import until

STREAMS = 60
AT_ONCE = 40  # of these, when a replica is killed


def test_nobody_notices(say: Callable[[str], None]) -> None:
    asks, undisturbed = greedy(STREAMS, tokens=(150, 250))
    with start_ray_sim({"id": MODEL, "engine_args": {"rate": 15}, "replicas": 2}) as inference:
        model = {"id": MODEL, "upstreams": [inference.base_urls[MODEL]], "api_key": inference.api_key}
        port = free_port()
        config = {"models": [model], "timeouts": {"heartbeat_s": 1.0}, "listen": {"metrics_port": port}}
        with start_gateway(config) as gateway:
            killed: set[int] = set()
            # A stream takes 10 to 17 s; they go on coming, for nobody knows how long a replica takes to come back.
            with Crowd(gateway.base_url, create_key(gateway), asks, per_s=5, repeat=True) as crowd:
                for _ in range(2):
                    until(lambda: counters(port)["cloudach_running_requests",] >= AT_ONCE, within_s=60)
                    until(lambda: len(replica_pids(inference) - killed) == 2, within_s=60)
                    # Of the older ones first: the new one may not serve yet.
                    victim = min(replica_pids(inference) - killed)
                    os.kill(victim, signal.SIGKILL)
                    killed.add(victim)
                    time.sleep(3.0)
                crowd.enough()
                answers = crowd.answers()
            assert [answer.error for answer in answers if answer.error] == []
            expected = [undisturbed[answer.number % STREAMS] for answer in answers]
            assert [answer.same() for answer in answers] == [answer.same() for answer in expected]
            assert {len(answer.heads) for answer in answers} == {1}
            until(lambda: len(gateway.requests) == len(answers))
            found = failovers(gateway.requests)
            assert len(found) >= AT_ONCE / 3, "a replica had about half of the streams when it was killed"
            beats = sum(entry["heartbeats"] for entry in gateway.requests)
            say(f"{len(answers)} requests, 2 replicas killed, {in_short(found)}, {beats} heart-beats")
