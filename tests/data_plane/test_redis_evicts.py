"""A Redis that may evict what it holds: it is used, and everybody is told."""

from __future__ import annotations

import httpx
import pytest
from redis import Redis

from tests.data_plane.conftest import chat
from tests.support.ports import free_port
from tests.support.stack import Gateway, create_key, served_by, start_gateway, start_sim
from tests.support.valkey import valkey
from tests.support.waiting import until

METRIC = "cloudach_redis_evicts"


def readiness(gateway: Gateway) -> dict[str, str]:
    answer = httpx.get(f"{gateway.url}/readyz")
    assert answer.status_code == 200
    found: dict[str, str] = answer.json()
    return found


def gauge(port: int) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    [value] = [line.split()[-1] for line in text.splitlines() if line.startswith(METRIC + " ")]
    return float(value)


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lfu"])
def test_everybody_is_told(policy: str) -> None:
    port = free_port()
    with (
        start_sim(rate=200, model="sim") as sim,
        valkey("--maxmemory", "200mb", "--maxmemory-policy", policy) as redis,
        start_gateway(
            {
                "models": [served_by(sim)],
                "redis": {"url": redis.url, "eviction_check_every_s": 0.5},
                "listen": {"metrics_port": port},
            }
        ) as gateway,
    ):
        key = create_key(gateway)
        headers = {"authorization": f"Bearer {key}"}
        answer = httpx.post(f"{gateway.base_url}/chat/completions", headers=headers, json=chat(max_tokens=2))
        assert answer.status_code == 200, "it serves nonetheless"
        until(lambda: policy in gateway.output)
        [line] = [line for line in gateway.output.splitlines() if policy in line]
        assert '"warning"' in line.lower()
        assert "noeviction" in line
        assert policy in readiness(gateway)["redis"]
        assert gauge(port) == 1
        with Redis.from_url(redis.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
        until(lambda: "redis" not in readiness(gateway))
        assert gauge(port) == 0
        assert sum(policy in line for line in gateway.output.splitlines()) == 1, "each change is told once"


def test_nothing_is_said_of_one_that_keeps_all() -> None:
    with (
        start_sim(rate=200, model="sim") as sim,
        valkey() as redis,
        start_gateway({"models": [served_by(sim)], "redis": {"url": redis.url}}) as gateway,
    ):
        assert readiness(gateway) == {"status": "ok"}
        assert "evict" not in gateway.output
