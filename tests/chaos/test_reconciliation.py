"""A run with cancels, failovers and errors: engines, records, totals and counters say the same, to the token.

Exactly equal: what was billed for answers that ended, failed ones included, and what the engines generated for them;
what another engine generated again, within a character that the break had split, is billed once. Of an answer that its
client left: billed is at least what the client has seen, and at most a tick or two less than was generated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.crowd import Answer, Ask, Crowd
from tests.support.observed import counters, failovers, in_short, records, totals, usage
from tests.support.ports import free_port
from tests.support.replicas import MODEL, replicas
from tests.support.stack import create_key, served_by, start_gateway
from tests.support.waiting import until

REQUESTS = 120
TOKENS = 60
FAILED_AT = 10
TENANTS = ("north", "south")

# Of ten requests. A "cut" one's engine breaks off once; a "failed" one wants no failover; a "refused" one is wrong in a
# way that only engines know.
KINDS = ("whole", "left", "plain", "left", "cut", "plain", "left", "plain", "failed", "refused")
CUTS = [f"{how}@{at}" for at in range(31, 36) for how in ("end", "close", "abort", "error")]


def ask(number: int, key: str) -> Ask:
    kind = KINDS[number % 10]
    body: dict[str, Any] = {
        "model": MODEL,
        "temperature": 0,
        "max_tokens": 5000 if kind == "left" else TOKENS - number % 7,
        "ignore_eos": True,
        "stream": kind != "whole",
        "messages": [{"role": "user", "content": f"Tell me of the sea {number}"}],
    }
    if body["stream"]:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    if kind == "refused":
        body["top_k"] = -7
    headers = {"authorization": f"Bearer {key}"}
    if kind == "cut":
        body["user"] = CUTS[number // 10 % len(CUTS)]
    elif kind == "failed":
        body["user"] = "failed"
        headers["x-cloudach-failover"] = "off"
    return Ask("chat", body, leave_after=1 + number * 3 % 40 if kind == "left" else None, headers=headers)


def test_all_books_agree(say: Callable[[str], None]) -> None:
    port = free_port()
    with replicas(4, rate=10, spread=True) as engines:  # a tick is longer than it takes until all know who has left
        for engine in engines:
            engine.arm(f"error@{FAILED_AT}", user="failed")
            for cut in CUTS:
                engine.arm(cut, user=cut)
        config = {
            "models": [served_by(*(engine.sim for engine in engines), max_model_len=32768)],
            "listen": {"metrics_port": port},
        }
        with start_gateway(config) as gateway:
            keys = [create_key(gateway, tenant=TENANTS[number % 2], name=f"{number}") for number in range(4)]
            with Crowd(
                gateway.base_url, "none", [ask(n, keys[n // 10 % 4]) for n in range(REQUESTS)], per_s=50
            ) as crowd:
                answers = crowd.answers()
            until(lambda: sum(engine.sim.stats()["running"] for engine in engines) == 0)
            until(lambda: len(gateway.requests) == REQUESTS)
            kept: dict[str, dict[str, Any]] = {}
            until(lambda: len(_all_records(gateway, kept)) == REQUESTS)
            counted = counters(port)
            day = {tenant: totals(gateway, tenant) for tenant in TENANTS}
            assert "agree" in usage(gateway, "reconcile")
            served: dict[str, list[dict[str, Any]]] = {}
            for engine in engines:
                for entry in engine.served():
                    served.setdefault(entry["id"], []).append(entry)
            for placements in served.values():
                placements.sort(key=lambda entry: entry["started"])

            _each_request(answers, kept, served)
            _sums(list(kept.values()), counted, day)
            generated = sum(engine.sim.stats()["generated_tokens_total"] for engine in engines)
            billed = sum(record["completion_tokens"] for record in kept.values())
            say(
                f"{REQUESTS} requests, {in_short(failovers(gateway.requests))}; {generated} tokens generated, "
                f"{billed} billed"
            )


def _all_records(gateway: Any, into: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for tenant in TENANTS:
        into |= {record["id"]: record for record in records(gateway, tenant)}
    return into


def _each_request(
    answers: list[Answer], kept: dict[str, dict[str, Any]], served: dict[str, list[dict[str, Any]]]
) -> None:
    on_the_way = []
    for answer in answers:
        kind = KINDS[answer.number % 10]
        if kind == "refused":
            assert answer.error.startswith("BadRequestError")
            continue
        assert answer.request_id is not None
        record, placements = kept[answer.request_id], served[answer.request_id]
        assert record["prompt_tokens"] == placements[0]["prompt_tokens"], "once, however many engines had it"
        assert record["failovers"] == len(placements) - 1 == (kind == "cut")
        seen = (answer.usage or {})["completion_tokens"]
        billed, generated = record["completion_tokens"], [entry["generated_tokens"] for entry in placements]
        if kind == "left":
            assert record["outcome"] == "cancelled"
            assert answer.left
            assert seen <= billed <= generated[0]
            on_the_way.append(generated[0] - billed)
            continue
        if kind == "failed":
            assert record["outcome"] == "failed"
            assert answer.error.startswith("APIError")
            assert generated == [billed] == [FAILED_AT]
            assert 0 <= billed - seen <= 2, "tokens of a character of which nothing could be shown yet"
            continue
        assert record["outcome"] == "finished"
        assert answer.error == ""
        assert billed == seen == TOKENS - answer.number % 7
        if kind == "cut":
            again = generated[0] - (placements[1]["prompt_tokens"] - placements[0]["prompt_tokens"])
            assert f"@{generated[0]}" in CUTS[answer.number // 10 % len(CUTS)]
            assert 0 <= again <= 2, "a character has at most three tokens"
            assert billed == sum(generated) - again
        else:
            assert generated == [billed]
    assert sum(on_the_way) <= 2 * len(on_the_way), "a tick or two of each that was left"


def _sums(kept: list[dict[str, Any]], counted: dict[tuple[str, ...], float], day: dict[str, dict[str, int]]) -> None:
    outcomes = Counter(record["outcome"] for record in kept)
    assert outcomes == {
        "finished": REQUESTS * 5 // 10,
        "cancelled": REQUESTS * 3 // 10,
        "failed": REQUESTS * 2 // 10,
    }
    for outcome, count in outcomes.items():
        assert counted["cloudach_generations_total", MODEL, outcome] == count
        assert sum(of[outcome] for of in day.values()) == count
    for name in ("prompt", "completion", "cached"):
        billed = sum(record[f"{name}_tokens"] for record in kept)
        assert counted["cloudach_tokens_total", name, MODEL] == billed
        assert sum(of[f"{name}_tokens"] for of in day.values()) == billed
    for tenant, of in day.items():
        assert of["completion_tokens"] == sum(r["completion_tokens"] for r in kept if r["tenant"] == tenant)
    assert counted["cloudach_failovers_total", MODEL] == sum(record["failovers"] for record in kept) == REQUESTS // 10
    assert sum(of["failovers"] for of in day.values()) == REQUESTS // 10
