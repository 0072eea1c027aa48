"""The Lua window against the plain Python one, and both against what they promise, with a clock that the test sets."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission.key_records import KeyLimits
from cloudach_gateway.admission.window import Decision, Window
from cloudach_gateway.store import layout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Scripted

WINDOW, GRACE = 10_000_000, 1_000_000
_examples = itertools.count()


class Pair:
    """The Lua and the model, asked the same at the same moment."""

    def __init__(self, client: redis.Redis, key: keys.NewKey) -> None:
        self.scripted = Scripted(client, key, WINDOW, GRACE)
        self.model = Window(WINDOW, GRACE)
        self.key = key
        self.limits = key.record.limits

    @property
    def now(self) -> int:
        return self.scripted.now

    @now.setter
    def now(self, now: int) -> None:
        self.scripted.now = now

    def admit(self, name: str, print: str, cost: int, retry: bool) -> Decision:
        reply = self.scripted.ask(name, print, cost, retry)
        expected = self.model.admit(
            self.now, self.limits.requests, self.limits.tokens, name=name, print=print, cost=cost, retry=retry
        )
        found = Decision(None if reply[0] == "ok" else reply[0], reply[1])
        assert found == expected
        requests, tokens, reset = self.model.booked(self.now)
        assert reply[2:5] == [requests, tokens if self.limits.tokens else 0, reset]
        counted = [(at, cost if self.limits.tokens else 0) for at, cost in self.model.entries()]
        assert sorted(self.booked()) == sorted(counted)
        return found

    def settle(self, name: str, used: int) -> None:
        self.scripted.settle(name, used)
        self.model.correct(name, used)

    def booked(self) -> list[tuple[int, int]]:
        """(accounted time, tokens) as Redis has them."""
        log, cost = layout.limiter_keys(self.key.record.tenant, self.key.record.id)[:2]
        costs = self.scripted.client.hgetall(cost)
        return [
            (int(at), int(costs.get(name, 0))) for name, at in self.scripted.client.zrange(log, 0, -1, withscores=True)
        ]


@dataclass
class Waiter:
    due: int
    print: str
    cost: int


step = st.tuples(
    st.sampled_from(["new", "new", "new", "impatient", "back", "back late", "gone", "settle"]),
    st.integers(0, 2_500_000),  # us until it happens
    st.sampled_from([1, 1, 2, 5, 9, 20]),  # tokens
)


def _pair(client: redis.Redis, store: KeyStore, rpm: int | None, tpm: int | None) -> Pair:
    made = keys.create(store, tenant=f"model{next(_examples)}", limits=KeyLimits(rpm, tpm))
    return Pair(client, made)


def _within_limits(entries: list[tuple[int, int]], limits: KeyLimits) -> bool:
    """In no window (end - W, end] more than the limit. It is enough to look at windows that end at an entry."""
    windows = [[cost for at, cost in entries if end - WINDOW < at <= end] for end, _ in entries]
    return all(
        (limits.requests is None or len(inside) <= limits.requests)
        and (limits.tokens is None or sum(inside) <= limits.tokens)
        for inside in windows
    )


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    rpm=st.one_of(st.none(), st.integers(1, 6)),
    tpm=st.one_of(st.none(), st.integers(20, 40)),
    steps=st.lists(step, min_size=5, max_size=60),
)
def test_lua_decides_as_the_model_and_keeps_every_promise(
    client: redis.Redis, key_store: KeyStore, rpm: int | None, tpm: int | None, steps: list[tuple[str, int, int]]
) -> None:
    if rpm is None and tpm is None:
        rpm = 3
    pair = _pair(client, key_store, rpm, tpm)
    waiting: list[Waiter] = []
    running: dict[str, int] = {}
    for number, (what, after, cost) in enumerate(steps):
        name = f"r{number}"
        if what in ("back", "back late") and waiting:
            waiter = min(waiting, key=lambda w: w.due)
            waiting.remove(waiter)
            lag = after % GRACE if what == "back" else GRACE + after % GRACE
            arrival = max(pair.now, waiter.due + lag)
            on_time = arrival < waiter.due + GRACE
            pair.now = arrival
            decision = pair.admit(name, waiter.print, waiter.cost, retry=True)
            assert decision.obstacle is None or not on_time, "a client that waited was sent away"
            if decision.obstacle is None:
                running[name] = waiter.cost
            elif decision.wait:
                waiting.append(Waiter(pair.now + decision.wait, waiter.print, waiter.cost))
        elif what == "gone" and waiting:
            waiting.pop(after % len(waiting))  # it will never come back
        elif what == "settle" and running:
            done = list(running)[after % len(running)]
            pair.settle(done, running.pop(done) * (after % 3) // 2)
        elif what == "impatient" and waiting:
            pair.now += after // 10
            waiter = waiting[after % len(waiting)]
            decision = pair.admit(name, waiter.print, waiter.cost, retry=True)
            if decision.obstacle is None:
                waiting.remove(waiter)
                running[name] = waiter.cost
            else:
                waiter.due = pair.now + decision.wait
        else:
            pair.now += after
            print = f"p{number}"
            decision = pair.admit(name, print, cost, retry=False)
            if decision.obstacle is None:
                running[name] = cost
            else:
                waiting.append(Waiter(pair.now + decision.wait, print, cost))
        assert _within_limits(pair.model.entries(), pair.limits)


@pytest.mark.parametrize("identical", [True, False])
def test_a_burst_is_admitted_in_batches_of_the_limit(client: redis.Redis, key_store: KeyStore, identical: bool) -> None:
    pair = _pair(client, key_store, 50, None)
    start = pair.now
    waits = []
    for number in range(200):
        pair.now += 100
        decision = pair.admit(f"r{number}", "same" if identical else f"p{number}", 1, retry=False)
        if decision.obstacle:
            waits.append((pair.now + decision.wait, number))
    assert len(waits) == 150
    assert [round((due - start) / WINDOW) for due, _ in waits] == [1] * 50 + [2] * 50 + [3] * 50
    for due, number in waits:
        pair.now = max(pair.now, due)
        assert pair.admit(f"again{number}", "same" if identical else f"p{number}", 1, retry=True).obstacle is None


def test_places_that_nobody_claims_go_to_newcomers(client: redis.Redis, key_store: KeyStore) -> None:
    """Callers that never come back cost no throughput but that of one grace."""
    pair = _pair(client, key_store, 10, None)
    start = pair.now
    passed = []
    for number in range(1500):  # four times the limit, nobody retries
        pair.now += WINDOW // 40
        if pair.admit(f"r{number}", f"p{number}", 1, retry=False).obstacle is None:
            passed.append(pair.now)
    windows = (pair.now - start) / WINDOW
    assert len(passed) >= 10 * windows * 0.95
    for end in passed:  # in real time: at most the limit in any window shortened by two graces
        assert sum(end - (WINDOW - 2 * GRACE) < at <= end for at in passed) <= 10


def test_usage_above_the_reservation_is_counted_but_breaks_no_promise(client: redis.Redis, key_store: KeyStore) -> None:
    pair = _pair(client, key_store, None, 100)
    assert pair.admit("a", "pa", 60, retry=False).obstacle is None
    pair.now += 1000
    told = pair.admit("b", "pb", 60, retry=False)
    assert told == Decision("tokens", WINDOW - 1000)
    pair.settle("a", 500)
    assert pair.admit("c", "pc", 1, retry=False).obstacle == "tokens"
    pair.now += told.wait
    assert pair.admit("b2", "pb", 60, retry=True).obstacle is None


def test_a_refund_lets_newcomers_in_where_no_promise_suffers(client: redis.Redis, key_store: KeyStore) -> None:
    pair = _pair(client, key_store, None, 100)
    pair.admit("a", "pa", 90, retry=False)
    pair.now += 1_000_000
    assert pair.admit("b", "pb", 60, retry=False).wait == WINDOW - 1_000_000
    pair.settle("a", 10)
    pair.now += 1_000_000
    assert pair.admit("c", "pc", 30, retry=False).obstacle is None  # 10 + 30 now, 30 + 60 when b comes
    assert pair.admit("d", "pd", 30, retry=False).obstacle == "tokens"  # would leave b 40


def test_an_impatient_retry_is_told_the_rest_of_its_wait(client: redis.Redis, key_store: KeyStore) -> None:
    pair = _pair(client, key_store, 1, None)
    pair.admit("a", "pa", 1, retry=False)
    first = pair.admit("b", "pb", 1, retry=False).wait
    pair.now += 3_000_000
    assert pair.admit("b2", "pb", 1, retry=True).wait == first - 3_000_000
    assert pair.admit("c", "pc", 1, retry=False).wait == first - 3_000_000 + WINDOW


def test_the_queue_is_bounded(client: redis.Redis, key_store: KeyStore) -> None:
    pair = _pair(client, key_store, 1, None)
    waits = [pair.admit(f"r{number}", f"p{number}", 1, retry=False).wait for number in range(300)]
    assert waits[1:257] == [WINDOW * number for number in range(1, 257)]
    assert set(waits[257:]) == {WINDOW * 257}
    log = layout.limiter_keys(pair.key.record.tenant, pair.key.record.id)[0]
    assert client.zcard(log) == 257


def test_the_clock_may_go_back(client: redis.Redis, key_store: KeyStore) -> None:
    pair = _pair(client, key_store, 1, None)
    pair.admit("a", "pa", 1, retry=False)
    pair.now -= 1000  # a little: as if it stood still
    assert pair.admit("b", "pb", 1, retry=False).wait == WINDOW
    pair.now -= 10 * WINDOW  # a lot: what was booked means nothing
    assert pair.admit("c", "pc", 1, retry=False).obstacle is None
