"""One gateway process under many streams for long, engines breaking off now and then: nothing grows, nothing stays."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import httpx
from redis import Redis

from tests.support.observed import counters, failovers, in_short, usage
from tests.support.ports import free_port
from tests.support.replicas import MODEL, replicas
from tests.support.soak.process import Holdings, holdings
from tests.support.soak.users import Users
from tests.support.stack import Gateway, create_key, served_by, start_gateway
from tests.support.valkey import valkey
from tests.support.waiting import until

RATE = 8  # tokens a second of each
STRIKE_EVERY_S = 10.0
IDLE_S = 30.0  # so long the gateway keeps a connection that nobody uses
SAMPLE_EVERY_S = 1.0


def soak(
    users: int, seconds: float, *, tokens: tuple[int, int], growth: float, idle: bool, say: Callable[[str], None]
) -> None:
    """tokens: of each answer. growth: what the memory may have grown in the last fifth against the third, as a
    fraction. idle: whether to wait until the gateway's unused connections are old."""
    port = free_port()
    with replicas(2, rate=RATE, spread=True) as engines, valkey() as redis:
        config = {
            "models": [served_by(*(engine.sim for engine in engines), max_model_len=32768)],
            "redis": {"url": redis.url},
            "listen": {"metrics_port": port},
        }
        with start_gateway(config) as gateway:
            key = create_key(gateway)
            _ask(gateway, key)
            before = _held(gateway, port)
            samples = []
            strikes = 0
            with Users(gateway.base_url, key, model=MODEL, count=users, seconds=seconds, tokens=tokens) as crowd:
                until(lambda: counters(port)["cloudach_running_requests",] > 0)
                began = time.monotonic()
                while crowd.running:
                    time.sleep(SAMPLE_EVERY_S)
                    samples.append((time.monotonic() - began, _held(gateway, port)))
                    if time.monotonic() - began > STRIKE_EVERY_S * (strikes + 1) - STRIKE_EVERY_S / 2:
                        engines[strikes % 2].strike("end")
                        strikes += 1
                outcomes = crowd.outcomes()
            asked = sum(outcomes.values())
            assert set(outcomes) == {"finished", "left"}
            loaded = [held for at, held in samples if at < seconds]
            assert max(held.accepted.total() for held in loaded) >= users * 0.95, "they did come all at once"

            until(lambda: counters(port)["cloudach_running_requests",] == 0)
            until(lambda: sum(engine.sim.stats()["running"] for engine in engines) == 0)
            with Redis.from_url(redis.url, decode_responses=True) as client:
                until(lambda: client.xlen("cloudach:{tests}:records") == asked + 1)
                for kind in ("leases", "running"):
                    assert list(client.scan_iter(f"cloudach:{{tests}}:{kind}:*")) == []

            assert "agree" in usage(gateway, "reconcile")

            until(lambda: _held(gateway, port).accepted.total() == 0)
            after = _held(gateway, port)
            assert after.others == before.others
            for remote, left in after.made.items():
                if any(engine.url.endswith(f":{remote}") for engine in engines):
                    peak = max(left, *(held.made[remote] for _, held in samples))
                    assert peak <= users, "connections to engines are used again"
                else:
                    assert left == before.made[remote], "to Redis"

            if idle:
                time.sleep(IDLE_S + 1)
                for _ in range(8):
                    _ask(gateway, key)
                assert _held(gateway, port).made.total() - before.made.total() <= 2, "one for each engine"

            third, last = (_memory(loaded, part) for part in (2, 4))
            say(f"{users} streams for {seconds:.0f} s: {dict(outcomes)}, {in_short(failovers(gateway.requests))}")
            say(
                f"MiB: {before.pss:.1f} before, {third:.1f} in the third fifth, {last:.1f} in the last, "
                f"{after.pss:.1f} at the end"
            )
            assert last <= third * (1 + growth)


def _ask(gateway: Gateway, key: str) -> None:
    answer = httpx.post(
        f"{gateway.base_url}/completions",
        headers={"authorization": f"Bearer {key}"},
        json={"model": MODEL, "prompt": "Hi", "max_tokens": 2},
        timeout=30,
    )
    assert answer.status_code == 200


def _held(gateway: Gateway, metrics_port: int) -> Holdings:
    port = httpx.URL(gateway.url).port
    assert port is not None
    return holdings(gateway.process.pid, {port, metrics_port})


def _memory(samples: list[Holdings], fifth: int) -> float:
    count = len(samples)
    return statistics.median(held.pss for held in samples[count * fifth // 5 : count * (fifth + 1) // 5])
