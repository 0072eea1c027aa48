"""Requests with the same beginning come to the same replica, and none is overrun for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from cloudach_inference.replica.affinity import BLOCK_CHARACTERS, BLOCK_TOKENS, Affinity, blocks

REPLICAS = ["a", "b", "c"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def prompt(name: str, size: int = 4) -> list[int]:
    return list(blocks({"prompt": name * (size * BLOCK_CHARACTERS)}))


def chat(*texts: str, **fields: Any) -> list[int]:
    return list(blocks({"messages": [{"role": "user", "content": text} for text in texts], **fields}))


def test_a_conversation_stays_where_it_began() -> None:
    affinity = Affinity(Clock())
    system = "s" * 1000
    turns = [chat(system, *[f"{visitor}{'x' * 600}"] * turn) for visitor in range(30) for turn in (1, 2, 3)]
    chosen = [affinity.choose(turn, REPLICAS)[0] for turn in turns]
    visits = [set(chosen[at : at + 3]) for at in range(0, len(chosen), 3)]
    assert sum(len(visit) > 1 for visit in visits) <= 2, "until each replica has seen what they all share"
    assert set(chosen) == set(REPLICAS)


def test_strangers_are_spread() -> None:
    affinity = Affinity(Clock())
    assert Counter(affinity.choose([], REPLICAS)[0] for _ in range(9)) == dict.fromkeys(REPLICAS, 3)
    assert Counter(affinity.choose(prompt(chr(65 + n)), REPLICAS)[0] for n in range(9)) == dict.fromkeys(REPLICAS, 3)


def test_a_beginning_that_all_share_does_not_overrun_one() -> None:
    affinity = Affinity(Clock())
    counts = Counter(affinity.choose(prompt("s"), REPLICAS)[0] for _ in range(300))
    assert max(counts.values()) <= 1.6 * 100
    assert set(counts) == set(REPLICAS)


def test_what_was_long_ago_counts_no_more() -> None:
    clock = Clock()
    affinity = Affinity(clock)
    first = [affinity.choose(prompt("s"), REPLICAS)[0] for _ in range(4)]
    clock.now = 600
    assert {affinity.choose(prompt("s"), REPLICAS)[0]} == set(first)


def test_the_longest_beginning_wins() -> None:
    affinity = Affinity(Clock())
    short, long = prompt("s", 1), prompt("s", 4)
    (one, two) = affinity.choose(long, ["a", "b"])
    affinity.choose(short, [two])  # the other has seen only the first block, and later
    assert affinity.choose(long, ["a", "b"])[0] == one


def test_a_replica_that_went_is_forgotten() -> None:
    affinity = Affinity(Clock())
    gone = affinity.choose(prompt("s"), REPLICAS)[0]
    left = [replica for replica in REPLICAS if replica != gone]
    affinity.keep(left)
    assert affinity.choose(prompt("s"), left)[0] in left
    assert affinity.choose(prompt("s"), REPLICAS)[0] != gone


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({}, 0),
        ({"prompt": "short"}, 0),
        ({"prompt": ["x" * 600, "y"]}, 2),
        ({"prompt": list(range(3 * BLOCK_TOKENS + 1))}, 3),
        ({"prompt": [list(range(BLOCK_TOKENS))]}, 1),
        ({"prompt": 5}, 0),
        ({"messages": "no"}, 0),
        ({"messages": [5, {"role": "user"}, {"content": [{"type": "text", "text": "z" * 600}, 5]}]}, 2),
    ],
)
def test_whatever_a_client_sends_has_blocks(body: dict[str, Any], count: int) -> None:
    assert len(list(blocks(body))) == count


def test_an_adapter_has_a_cache_of_its_own() -> None:
    assert not set(chat("x" * 600, model="m")) & set(chat("x" * 600, model="m:sql"))
    assert chat("x" * 600, model="m") == chat("x" * 600, model="m", temperature=1)
    assert chat("x" * 600)[:1] != chat("y" * 600)[:1]


def test_tenants_that_share_no_cache_share_no_blocks() -> None:
    one, other = chat("s" * 1000, cache_salt="a"), chat("s" * 1000, cache_salt="b")
    assert one == chat("s" * 1000, cache_salt="a")
    assert not set(one) & set(other)
