"""Requests of a gateway that is gone: billed once, as far as it had noted them; corrected if it was only away."""

from __future__ import annotations

import itertools

import pytest
import redis
from cloudach_gateway.admin import books, keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.store import layout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Scripted

SECOND = 1_000_000
TTL = 20 * SECOND
DAY = "20260101"
_examples = itertools.count()


@pytest.fixture
def scripted(client: redis.Redis, make_key) -> Scripted:
    return Scripted(client, make_key(tokens=1000, concurrency=5), window=60 * SECOND, lease_ttl=TTL)


def _totals(scripted: Scripted, day: str = DAY) -> dict[str, int]:
    record = scripted.key.record
    found = scripted.client.hgetall(layout.usage(record.tenant, record.id, day))
    return {name: int(value) for name, value in found.items() if int(value)}


def _left(scripted: Scripted) -> list[int]:
    """How many leases, checkpoints, marks of lost requests, and keys that the sweep has to look at."""
    tenant, key_id, client = scripted.key.record.tenant, scripted.key.record.id, scripted.client
    leases, running = layout.leases(tenant, key_id), layout.running(tenant, key_id)
    lost, opened = layout.lost(tenant), layout.open_keys(tenant)
    return [client.zcard(leases), client.hlen(running), client.hlen(lost), client.scard(opened)]


def _booked(scripted: Scripted) -> int:
    """Tokens in the window, as an admission sees them."""
    return int(scripted.ask("probe", cost=1001)[3])


def test_billed_as_noted_last(scripted: Scripted) -> None:
    scripted.ask("a", cost=300)
    scripted.now += 7 * SECOND
    scripted.renew(("a", 10, 20, 4))
    scripted.now += 7 * SECOND
    scripted.renew(("a", 10, 90, 4))
    scripted.now += 2 * TTL - 1
    assert scripted.renew() == []
    assert scripted.records() == []
    assert _left(scripted) == [1, 1, 0, 1]
    scripted.now += 1
    assert scripted.renew() == ["a"]
    record = scripted.key.record
    assert scripted.records() == [
        {
            "v": "1", "id": "a", "part": "0", "tenant": record.tenant, "key": record.id, "model": "m",
            "route": "completions", "prompt_tokens": "10", "completion_tokens": "90", "cached_tokens": "4",
            "ttft_ms": "", "duration_ms": "14000", "outcome": "lost", "failovers": "0", "day": DAY,
            "at_ms": str(scripted.now // 1000),
        }
    ]  # fmt: skip
    assert _totals(scripted) == {
        "requests": 1, "prompt_tokens": 10, "completion_tokens": 90, "cached_tokens": 4, "lost": 1,
    }  # fmt: skip
    assert _left(scripted) == [0, 0, 1, 0]
    scripted.now += 10 * TTL
    assert scripted.renew() == []
    assert len(scripted.records()) == 1


def test_the_window_gives_back_what_was_not_used(scripted: Scripted) -> None:
    scripted = Scripted(scripted.client, scripted.key, window=600 * SECOND, lease_ttl=TTL)
    scripted.ask("a", cost=300)
    scripted.ask("b", cost=500)
    scripted.renew(("a", 10, 90, 0), ("b", 1, 2, 0))
    assert _booked(scripted) == 800
    scripted.now += 2 * TTL
    scripted.renew(("b", 1, 5, 0))
    assert _booked(scripted) == 600
    scripted.settle("a", 10, 95)
    assert _booked(scripted) == 605


def test_a_gateway_that_died_before_its_first_note(scripted: Scripted) -> None:
    scripted.ask("a")
    scripted.now += 2 * TTL
    assert scripted.renew() == ["a"]
    (record,) = scripted.records()
    assert (record["model"], record["route"], record["completion_tokens"]) == ("m", "completions", "0")
    assert record["duration_ms"] == "0"


def test_a_lease_without_any_note(scripted: Scripted) -> None:
    """As a gateway of an earlier version leaves it."""
    scripted.ask("a")
    scripted.client.delete(layout.running(scripted.key.record.tenant, scripted.key.record.id))
    scripted.now += 2 * TTL
    assert scripted.renew() == ["a"]
    assert [(record["id"], record["outcome"], record["model"]) for record in scripted.records()] == [("a", "lost", "")]


def test_only_so_many_at_a_time(scripted: Scripted) -> None:
    for name in "abcde":
        scripted.ask(name)
    scripted.now += 2 * TTL
    assert scripted.renew(bury=0) == []
    assert [len(scripted.renew(bury=2)) for _ in range(4)] == [2, 2, 1, 0]
    assert sorted(record["id"] for record in scripted.records()) == list("abcde")


def test_settled_in_time_leaves_nothing(scripted: Scripted) -> None:
    scripted.ask("a")
    scripted.renew(("a", 1, 2, 0))
    scripted.settle("a", 1, 5)
    scripted.renew(("a", 1, 3, 0))  # overtaken on its way
    scripted.now += 2 * TTL
    assert scripted.renew() == []
    assert _left(scripted) == [0, 0, 0, 0]
    assert [record["outcome"] for record in scripted.records()] == ["finished"]


def test_a_late_settlement_books_the_rest(scripted: Scripted) -> None:
    """Its gateway was paused, and did not know that it was given up."""
    scripted.ask("a")
    scripted.renew(("a", 10, 20, 4))
    scripted.now += 2 * TTL
    assert scripted.renew() == ["a"]
    scripted.settle("a", 10, 50, 4)
    scripted.settle("a", 10, 50, 4, once=False)
    first, second = scripted.records()
    assert (first["outcome"], first["part"], first["completion_tokens"]) == ("lost", "0", "20")
    assert {name: second[name] for name in ("id", "part", "outcome", "ttft_ms", "duration_ms")} == {
        "id": "a", "part": "1", "outcome": "finished", "ttft_ms": "7", "duration_ms": "1234",
    }  # fmt: skip
    assert (second["prompt_tokens"], second["completion_tokens"], second["cached_tokens"]) == ("0", "30", "0")
    assert _totals(scripted) == {
        "requests": 1, "prompt_tokens": 10, "completion_tokens": 50, "cached_tokens": 4, "finished": 1,
    }  # fmt: skip
    assert _left(scripted) == [0, 0, 0, 0]


def test_a_rest_is_booked_on_its_own_day(scripted: Scripted) -> None:
    """A day that billing has closed does not change."""
    scripted.ask("a")
    scripted.renew(("a", 10, 20, 0))
    scripted.now += 2 * TTL
    scripted.renew(day="20260131")
    scripted.settle("a", 10, 50, day="20260201")
    assert _totals(scripted, "20260131") == {"requests": 1, "prompt_tokens": 10, "completion_tokens": 20, "lost": 1}
    assert _totals(scripted, "20260201") == {"completion_tokens": 30, "lost": -1, "finished": 1}
    record = scripted.key.record
    assert scripted.client.smembers(layout.used(record.tenant, "20260201")) == {record.id}
    assert scripted.client.ttl(layout.usage(record.tenant, record.id, "20260201")) > 0


def test_one_that_comes_back_runs_on(scripted: Scripted) -> None:
    """Its gateway was cut off, and renews again: the stream counts again, and no token twice, however it ends."""
    for name in "abcde":
        scripted.ask(name)
    assert scripted.ask("too many")[0] == "streams"
    scripted.renew(*((name, 10, 20, 0) for name in "abcde"))
    scripted.now += 2 * TTL
    assert scripted.renew() == list("abcde")
    scripted.renew(*((name, 10, 60, 0) for name in "abcde"))
    assert scripted.ask("too many again")[0] == "streams"
    for name in "abc":
        scripted.settle(name, 10, 100)
        scripted.settle(name, 10, 100, once=False)
    scripted.now += 2 * TTL
    assert scripted.renew() == ["d", "e"]  # really dead now
    scripted.settle("d", 10, 55)  # or not; and this engine counts less than was noted
    spoken = {name: [record for record in scripted.records() if record["id"] == name] for name in "abcde"}
    assert [record["outcome"] for record in spoken["a"]] == ["lost", "finished"]
    assert [record["outcome"] for record in spoken["d"]] == ["lost", "lost", "finished"]
    assert [record["part"] for record in spoken["d"]] == ["0", "1", "2"]
    assert [record["completion_tokens"] for record in spoken["d"]] == ["20", "40", "-5"]
    assert [record["completion_tokens"] for record in spoken["e"]] == ["20", "40"]
    assert _totals(scripted) == {
        "requests": 5, "prompt_tokens": 50, "completion_tokens": 415, "finished": 4, "lost": 1,
    }  # fmt: skip


def test_a_deleted_key_is_billed_too(scripted: Scripted, key_store) -> None:
    scripted.ask("a")
    scripted.renew(("a", 1, 2, 0))
    key_store.remove(scripted.key.record.tenant, scripted.key.record.id)
    scripted.now += 2 * TTL
    assert _left(scripted)[3] == 1, "the sweep still finds it"
    assert scripted.renew() == ["a"]
    assert _totals(scripted)["completion_tokens"] == 2


def test_names_with_spaces(scripted: Scripted) -> None:
    scripted.ask("a")
    running = layout.running(scripted.key.record.tenant, scripted.key.record.id)
    ((lease, note),) = scripted.client.hgetall(running).items()
    scripted.client.hset(running, lease, note.removesuffix("completions m") + " my  model")
    scripted.now += 2 * TTL
    scripted.renew()
    (record,) = scripted.records()
    assert (record["route"], record["model"]) == ("", "my  model")


step = st.tuples(
    st.sampled_from(["new", "note", "note", "wait", "sweep", "settle", "settle again"]),
    st.integers(0, 50),  # which request; and tokens
    st.sampled_from([1, TTL // 3, TTL, 2 * TTL, 3 * TTL]),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(step, min_size=5, max_size=50))
def test_whatever_happens_records_add_up(
    client: redis.Redis, key_store: KeyStore, steps: list[tuple[str, int, int]]
) -> None:
    """To what was settled, or else to what was noted when the request was last declared lost; and to the totals."""
    scripted = Scripted(client, keys.create(key_store, tenant=f"lost{next(_examples)}"), lease_ttl=TTL)
    noted: dict[str, int] = {}
    billed: dict[str, int] = {}
    ended: set[str] = set()
    for number, (what, some, time) in enumerate(steps):
        names = sorted(noted)
        name = names[some % len(names)] if names else ""
        if what == "new":
            scripted.ask(f"r{number}")
            noted[f"r{number}"] = 0
        elif what == "wait":
            scripted.now += time
        elif what == "sweep":
            for lost in scripted.renew():
                billed[lost] = noted[lost]
        elif name and what == "note":
            lost_now = scripted.renew((name, 1, number + some, 0), bury=0)
            assert lost_now == []
            if name not in ended:
                noted[name] = number + some
        elif name and name in ended:
            scripted.settle(name, 1, 999, once=False)
        elif name and what == "settle":
            scripted.settle(name, 1, some)
            billed[name] = some
            ended.add(name)
    records = [books.typed(fields) for fields in scripted.records()]
    sums = books.add_up(records)
    record = scripted.key.record
    totals = client.hgetall(layout.usage(record.tenant, record.id, DAY))
    said = {record.id: {name: int(value) for name, value in totals.items()}} if totals else {}
    assert sums.twice == []
    assert books.differences(said, sums.keys) == []
    told = {name: sum(r["completion_tokens"] for r in records if r["id"] == name) for name in billed}
    assert told == billed
    assert {r["id"] for r in records} == set(billed)
    last = {r["id"]: r["outcome"] for r in records}
    assert {name for name, outcome in last.items() if outcome == "finished"} == ended
    waiting = set(noted) - ended
    left = set(client.hkeys(layout.running(record.tenant, record.id)))
    assert {lease.split(":")[1] for lease in left} <= waiting
