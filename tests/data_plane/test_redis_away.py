"""Redis dies and comes back: nobody hangs, known keys go on, unknown ones are told to wait, nothing is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from redis import Redis

from tests.data_plane.conftest import Stack, chat
from tests.support.stack import Gateway, create_key, served_by, start_gateway, start_sim, used
from tests.support.valkey import Valkey, valkey
from tests.support.waiting import until

WINDOW_S = 8.0


@pytest.fixture
def redis() -> Iterator[Valkey]:
    with valkey() as running:
        yield running


def test_redis_dies_and_comes_back(redis: Valkey) -> None:
    with (
        start_sim(rate=200, model="sim") as sim,
        start_gateway(
            {
                "models": [served_by(sim)],
                "redis": {"url": redis.url, "probe_every_s": 0.3},
                "limits": {"window_s": WINDOW_S},
            }
        ) as gateway,
    ):
        known = create_key(gateway, requests_per_minute=5)
        unknown = create_key(gateway)
        stack = Stack(sim, gateway, known)
        assert stack.post(json=chat(max_tokens=3)).status_code == 200
        until(lambda: used(gateway, known).get("finished") == 1)
        time.sleep(WINDOW_S + 0.2)  # the window is empty again, so that the local limit is seen alone
        redis.kill()
        statuses = []
        for _ in range(7):
            began = time.monotonic()
            statuses.append(stack.post(json=chat(max_tokens=3)).status_code)
            assert time.monotonic() - began < 10, "it must not hang"
        assert statuses == [200] * 5 + [429] * 2, "the key's own limit holds, in this process"
        refused = stack.post(key=unknown, json=chat())
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_is_overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        redis.start()

        def recovered() -> bool:
            return stack.post(key=unknown, json=chat(max_tokens=1)).status_code == 200

        until(recovered)
        until(lambda: used(gateway, known)["finished"] == 6)
        assert used(gateway, known)["completion_tokens"] == 6 * 3, "what was used meanwhile is on the books, once"


def test_a_gateway_that_starts_without_redis_is_not_ready_before_it_has_reached_it(redis: Valkey) -> None:
    """It can let nobody in, so that a rollout keeps the gateways that know their keys."""
    config = {"redis": {"url": redis.url, "probe_every_s": 0.3}}
    with start_sim(rate=200, model="sim") as sim, start_gateway({"models": [served_by(sim)], **config}) as known:
        key = create_key(known)
        known_stack = Stack(sim, known, key)
        known_stack.still_serves()
        redis.kill()
        known_stack.still_serves()
        with start_gateway({"models": [served_by(sim)], **config}, ready=False) as gateway:
            readiness = httpx.get(f"{gateway.url}/readyz")
            assert readiness.status_code == 503
            assert readiness.json() == {"status": "starting", "redis": "not reached yet"}
            assert httpx.get(f"{gateway.url}/healthz").status_code == 200, "to start it again would not help"
            assert httpx.get(f"{known.url}/readyz").status_code == 200
            refused = Stack(sim, gateway, key).post(json=chat())
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            redis.start()
            until(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200)
            Stack(sim, gateway, key).still_serves()
            redis.kill()
            Stack(sim, gateway, key).still_serves()
            assert httpx.get(f"{gateway.url}/readyz").json() == {"status": "ok"}, "it knows keys now"


def test_a_stream_goes_on_without_redis(redis: Valkey) -> None:
    config = {"redis": {"url": redis.url, "probe_every_s": 0.3}}
    with (
        start_sim(rate=20, model="sim") as sim,
        start_gateway({"models": [served_by(sim)], **config}) as gateway,
    ):
        key = create_key(gateway)
        headers = {"authorization": f"Bearer {key}"}
        body = chat(stream=True, max_tokens=40, min_tokens=40)
        with httpx.stream("POST", f"{gateway.base_url}/chat/completions", headers=headers, json=body) as answer:
            parts = answer.iter_raw()
            data = next(parts)
            redis.kill()
            data += b"".join(parts)
        assert data.endswith(b"data: [DONE]\n\n")
        redis.start()
        until(lambda: used(gateway, key).get("completion_tokens") == 40)


def test_requests_that_redis_admitted_without_saying_so_in_time_are_booked_once(redis: Valkey) -> None:
    config = {
        "redis": {"url": redis.url, "timeout_s": 1.0, "probe_every_s": 0.3},
        "limits": {"lease_ttl_s": 1.0},
    }
    with start_sim(rate=20, model="sim") as sim, start_gateway({"models": [served_by(sim)], **config}) as gateway:
        key = create_key(gateway)
        ask(gateway, key, 20)
        with ThreadPoolExecutor(6) as threads:
            with redis.held():
                # The long one outlives its lease in Redis, and is taken for lost meanwhile.
                answers = [threads.submit(ask, gateway, key, tokens) for tokens in (5, 5, 5, 5, 120)]
                until(lambda: sim.stats()["requests_total"] == 6)
            for answer in answers:
                answer.result()
        with Redis.from_url(redis.url, decode_responses=True) as client:
            until(lambda: _booked(client) == [5, 5, 5, 5, 20, 120])
            for kind in ("leases", "running"):
                assert list(client.scan_iter(f"cloudach:{{tests}}:{kind}:*")) == []
            records = [record for _, record in client.xrange("cloudach:{tests}:records")]
            assert len({(record["id"], record["part"]) for record in records}) == len(records)
            assert [record["completion_tokens"] for record in records if record["outcome"] == "lost"] in ([], ["0"])
            totals: Counter[str] = Counter()
            for day in client.scan_iter("cloudach:{tests}:usage:*"):  # two, around midnight
                totals.update({name: int(value) for name, value in client.hgetall(day).items()})
            assert (totals["requests"], totals["completion_tokens"], totals["finished"]) == (6, 160, 6)
            assert totals["lost"] == 0


def ask(gateway: Gateway, key: str, tokens: int) -> None:
    answer = httpx.post(
        f"{gateway.base_url}/completions",
        headers={"authorization": f"Bearer {key}"},
        json={"model": "sim", "prompt": "Hi", "max_tokens": tokens, "ignore_eos": True},
        timeout=30,
    )
    assert answer.status_code == 200


def _booked(client: Redis) -> list[int]:
    """Completion tokens by request."""
    of: dict[str, int] = {}
    for _, record in client.xrange("cloudach:{tests}:records"):
        of[record["id"]] = of.get(record["id"], 0) + int(record["completion_tokens"])
    return sorted(of.values())
