"""Exact money: engine, usage records, totals and counters say the same, also of a gateway that is killed or paused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from tests.data_plane.conftest import chat
from tests.support.ports import free_port
from tests.support.processes import BIN
from tests.support.stack import Gateway, Simulator, create_key, served_by, start_gateway, start_sim
from tests.support.valkey import Valkey, valkey
from tests.support.waiting import until

LEASE_TTL_S = 1.5
RATE = 50  # tokens/s of each stream

TEXT = {"model": "sim", "prompt": "Once upon a time", "max_tokens": 7, "min_tokens": 7}

# Of every chunk how many tokens there were until then.
COUNTED = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with start_sim(rate=RATE, model="sim") as sim:
        yield sim


@pytest.fixture(scope="module")
def redis() -> Iterator[Valkey]:
    with valkey() as running:
        yield running


def _start(engine: Simulator, redis: Valkey, metrics_port: int | None = None) -> Gateway:
    return start_gateway(
        {
            "models": [served_by(engine)],
            "redis": {"url": redis.url},
            "listen": {"metrics_port": metrics_port},
            "limits": {"lease_ttl_s": LEASE_TTL_S},
        }
    )


@pytest.fixture(scope="module")
def gateway(engine: Simulator, redis: Valkey) -> Iterator[Gateway]:
    """One that lives on."""
    with _start(engine, redis) as running:
        yield running


def usage(gateway: Gateway, *words: str | Path, code: int = 0) -> str:
    """What `cloudach usage …` prints."""
    command = [BIN / "cloudach", "usage", *words, "--config", gateway.config_file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (code, ""), done
    return done.stdout


def records(gateway: Gateway, tenant: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in usage(gateway, "records", "--tenant", tenant).splitlines()]


def totals(gateway: Gateway, tenant: str) -> dict[str, int]:
    words = ("totals", "--tenant", tenant, "--by", "tenant", "--from", "2000-01-01", "--format", "json")
    found: list[dict[str, int]] = json.loads(usage(gateway, *words))
    return found[0] if found else {}


def settled(redis: Valkey, gateway: Gateway, tenant: str, count: int) -> list[dict[str, Any]]:
    """The tenant's records, once there are so many."""
    with Redis.from_url(redis.url) as client:
        until(lambda: client.xlen(f"cloudach:{{{tenant}}}:records") >= count)
    return records(gateway, tenant)


def agree(gateway: Gateway, tenant: str) -> bool:
    return "agree" in usage(gateway, "reconcile", "--tenant", tenant)


async def stream(base_url: str, key: str, *, tokens: int, leave_after: int | None = None, seen: list[int]) -> None:
    """`seen` gets the number of tokens as each chunk tells it."""
    body = chat(max_tokens=tokens, min_tokens=tokens, ignore_eos=True, **COUNTED)
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{base_url}/chat/completions", headers=bearer(key), json=body) as answer,
    ):
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                seen.append(json.loads(line[6:])["usage"]["completion_tokens"])
                if leave_after is not None and seen[-1] >= leave_after:
                    return


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def notes_of(redis: Valkey, tenant: str) -> tuple[list[int], float]:
    """What is noted of the tokens of its running requests, and how old the oldest note is, in seconds."""
    with Redis.from_url(redis.url, decode_responses=True) as client:
        seconds, microseconds = client.time()
        (name,) = client.scan_iter(f"cloudach:{{{tenant}}}:running:*")
        notes = [note.split() for note in client.hvals(name)]
    oldest = min(int(note[0]) for note in notes)
    return sorted(int(note[2]) for note in notes), (seconds * 1_000_000 + microseconds - oldest) / 1e6


async def until_told(seen: list[list[int]], tokens: float) -> None:
    """Until every stream has so many."""
    async with asyncio.timeout(30):
        while min((numbers or [0])[-1] for numbers in seen) < tokens:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def ask(gateway: Gateway, key: str) -> httpx.Response:
    return httpx.post(f"{gateway.base_url}/completions", headers=bearer(key), json=TEXT, timeout=30)


def counters(port: int) -> dict[str, float]:
    """Tokens by kind, generations by outcome."""
    families = text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    return {
        sample.labels.get("kind") or sample.labels["outcome"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name in ("cloudach_tokens_total", "cloudach_generations_total")
    }


async def test_engine_records_totals_and_counters_agree(engine: Simulator, redis: Valkey) -> None:
    """To the token, for answers read to their end and for those left in between."""
    port = free_port()
    engine.reset()
    engine.configure(rate=8)  # a tick is longer than it takes until all know who has left
    with _start(engine, redis, port) as gateway:
        keys = [create_key(gateway, tenant="mixed", name=f"{number}") for number in range(3)]
        seen: list[list[int]] = [[] for _ in range(30)]
        await asyncio.gather(
            *(
                stream(
                    gateway.base_url,
                    keys[number % 3],
                    tokens=10 + number,
                    leave_after=5 if number % 3 == 0 else None,
                    seen=seen[number],
                )
                for number in range(30)
            )
        )
        whole = ask(gateway, keys[0]).json()
        found = settled(redis, gateway, "mixed", 31)
        until(lambda: len(gateway.requests) == 31)
        until(lambda: engine.stats()["running"] == 0)
        engine.configure(rate=RATE)
        counted = counters(port)
        stats = engine.stats()
        assert len({record["id"] for record in found}) == len(found) == 31
        assert {(record["model"], record["route"]) for record in found} == {
            ("sim", "chat/completions"),
            ("sim", "completions"),
        }
        finished = [record for record in found if record["outcome"] == "finished"]
        left = [record for record in found if record["outcome"] == "cancelled"]
        assert sorted(record["completion_tokens"] for record in finished) == sorted(
            [*(10 + number for number in range(30) if number % 3), whole["usage"]["completion_tokens"]]
        )
        assert len(left) == 10
        assert all(record["ttft_ms"] <= record["duration_ms"] for record in finished)
        of = totals(gateway, "mixed")
        for kind in ("prompt_tokens", "completion_tokens"):
            billed = sum(record[kind] for record in found)
            assert of[kind] == billed == counted[kind.removesuffix("_tokens")]
        assert (of["finished"], of["cancelled"]) == (counted["finished"], counted["cancelled"]) == (21, 10)
        told = sum(numbers[-1] for numbers in seen) + whole["usage"]["completion_tokens"]
        assert told <= of["completion_tokens"] <= stats["generated_tokens_total"]
        assert stats["generated_tokens_total"] - of["completion_tokens"] <= 10 * 2, "a tick or two of those left"
        assert agree(gateway, "mixed")


async def test_a_gateway_killed_in_mid_stream(engine: Simulator, redis: Valkey, gateway: Gateway) -> None:
    """Another one, which never serves this tenant, bills what the killed one noted last: once, and at most a third of a
    lease's life of tokens less than the clients saw, or as long as the note is old where the machine is busy."""
    with _start(engine, redis) as doomed:
        key = create_key(doomed, tenant="killed", tokens_per_minute=1_000_000)
        seen: list[list[int]] = [[] for _ in range(20)]
        running = [asyncio.create_task(stream(doomed.base_url, key, tokens=4000, seen=numbers)) for numbers in seen]
        await until_told(seen, 3 * LEASE_TTL_S * RATE)
        assert totals(gateway, "killed") == {}
        doomed.kill()
        notes, age_s = notes_of(redis, "killed")
        ended = await asyncio.gather(*running, return_exceptions=True)
    assert {type(error) for error in ended} <= {httpx.RemoteProtocolError, httpx.ReadError}
    found = await asyncio.to_thread(settled, redis, gateway, "killed", 20)
    assert {record["outcome"] for record in found} == {"lost"}
    assert len({record["id"] for record in found}) == len(found) == 20
    told = sorted(numbers[-1] for numbers in seen)
    noted = sorted(record["completion_tokens"] for record in found)
    assert noted == notes
    assert age_s < LEASE_TTL_S, "it is noted three times in a lease's life"
    # Half a second more: a note knows nothing of the tokens that wait to be read.
    assert all(saw - had <= (max(age_s, LEASE_TTL_S / 3) + 0.5) * RATE for saw, had in zip(told, noted, strict=True))
    assert all(had <= saw + 5 for saw, had in zip(told, noted, strict=True)), "noted, but cut on its way to the client"
    assert {record["prompt_tokens"] for record in found} == {found[0]["prompt_tokens"]} != {0}
    of = totals(gateway, "killed")
    assert (of["requests"], of["lost"], of["completion_tokens"]) == (20, 20, sum(noted))
    assert agree(gateway, "killed")
    left = ask(gateway, key).headers
    assert int(left["x-ratelimit-remaining-tokens"]) > 900_000, "the minute has their real use, not the reservations"


async def test_a_paused_gateway_bills_every_token_once(engine: Simulator, redis: Valkey, gateway: Gateway) -> None:
    """Taken for dead meanwhile: what it notes afterwards is the rest."""
    with _start(engine, redis) as paused:
        key = create_key(paused, tenant="paused")
        seen: list[list[int]] = [[] for _ in range(5)]
        running = [asyncio.create_task(stream(paused.base_url, key, tokens=300, seen=numbers)) for numbers in seen]
        await until_told(seen, LEASE_TTL_S * RATE)
        os.kill(paused.process.pid, signal.SIGSTOP)
        try:
            await asyncio.to_thread(settled, redis, gateway, "paused", 5)
            assert totals(gateway, "paused")["lost"] == 5
        finally:
            os.kill(paused.process.pid, signal.SIGCONT)
        await asyncio.gather(*running)
        found = await asyncio.to_thread(settled, redis, gateway, "paused", 10)
    of = totals(gateway, "paused")
    assert (of["requests"], of["lost"], of["finished"], of["completion_tokens"]) == (5, 0, 5, 5 * 300)
    assert sorted(record["part"] for record in found) == [0] * 5 + [1] * 5
    for name in {record["id"] for record in found}:
        assert sum(record["completion_tokens"] for record in found if record["id"] == name) == 300
    assert agree(gateway, "paused")


def test_a_redis_that_goes_away(engine: Simulator) -> None:
    """Records of that time are written when it is back, once."""
    with valkey() as own, _start(engine, own) as gateway:
        key = create_key(gateway, tenant="away")
        assert ask(gateway, key).status_code == 200
        settled(own, gateway, "away", 1)
        own.kill()
        assert [ask(gateway, key).status_code for _ in range(5)] == [200] * 5
        own.start()
        found = settled(own, gateway, "away", 6)
        assert len({record["id"] for record in found}) == len(found) == 6
        assert {(record["completion_tokens"], record["outcome"]) for record in found} == {(7, "finished")}
        assert agree(gateway, "away")


def test_billing_at_the_command_line(redis: Valkey, gateway: Gateway) -> None:
    key = create_key(gateway, tenant="billed")
    for _ in range(3):
        assert ask(gateway, key).status_code == 200
    settled(redis, gateway, "billed", 3)
    words = ("records", "--tenant", "billed", "--group", "billing", "--consumer", "invoices")
    first = usage(gateway, *words, "--count", "2")
    again = usage(gateway, *words, "--ack")
    assert again.startswith(first)
    assert len(again.splitlines()) == 3
    assert usage(gateway, *words) == ""
