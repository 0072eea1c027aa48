"""Concurrent streams: what those are told who find none free, and what is done to make it true."""

from __future__ import annotations

import pytest
import redis

from .conftest import Scripted

SECOND = 1_000_000


@pytest.fixture
def scripted(client: redis.Redis, make_key) -> Scripted:
    """One stream at a time; streams of this key have been seen to last 4 s."""
    made = Scripted(client, make_key(concurrency=1))
    for number in range(30):
        assert made.ask(f"past {number}")[0] == "ok"
        made.now += 4 * SECOND
        made.settle(f"past {number}")
    return made


def test_the_wait_is_the_rest_of_a_typical_stream(scripted: Scripted) -> None:
    scripted.ask("running")
    scripted.now += SECOND
    status, wait = scripted.ask("b")[:2]
    assert (status, wait) == ("streams", pytest.approx(3 * SECOND, rel=0.02))
    status, wait = scripted.ask("c")[:2]
    assert (status, wait) == ("streams", pytest.approx(7 * SECOND, rel=0.02))  # b comes first
    scripted.now += 10 * SECOND  # a long one, and it is not known when it ends
    assert SECOND <= scripted.ask("d")[1] <= 60 * SECOND


def test_without_history_a_short_wait_that_grows(client: redis.Redis, make_key) -> None:
    scripted = Scripted(client, make_key(concurrency=1))
    scripted.ask("first")
    assert scripted.ask("second")[:2] == ["streams", SECOND], "short at first: it may be over in a moment"
    scripted.now += 40 * SECOND
    assert SECOND < scripted.ask("third")[1] <= 20 * SECOND, "it is no short one"


def test_a_freed_stream_waits_for_the_one_who_was_told_to(scripted: Scripted) -> None:
    scripted.ask("running")
    wait = scripted.ask("b")[1]
    scripted.now += 2 * SECOND
    scripted.settle("running")
    assert scripted.ask("newcomer")[0] == "streams"
    scripted.now += wait - 2 * SECOND
    assert scripted.ask("another newcomer")[0] == "streams"
    assert scripted.ask("b again", "print of b", retry=True)[0] == "ok"


def test_who_comes_early_may_use_what_is_held_for_it(scripted: Scripted) -> None:
    scripted.ask("running")
    scripted.ask("b")
    assert scripted.ask("b early", "print of b", retry=True)[0] == "streams"
    scripted.settle("running")
    assert scripted.ask("b early", "print of b", retry=True)[0] == "ok"


def test_a_hold_ends_after_the_grace(scripted: Scripted) -> None:
    scripted.ask("running")
    wait = scripted.ask("b")[1]
    scripted.settle("running")
    scripted.now += wait + scripted.grace + 1
    assert scripted.ask("newcomer")[0] == "ok"


def test_nothing_is_held_for_keys_whose_callers_do_not_come_back(scripted: Scripted) -> None:
    refused = 0
    for number in range(20):
        scripted.ask(f"running {number}")
        scripted.ask(f"gone {number}")
        scripted.settle(f"running {number}")
        scripted.now += SECOND
        if scripted.ask(f"newcomer {number}")[0] == "ok":
            scripted.settle(f"newcomer {number}")
        else:
            refused += 1
        scripted.now += 20 * SECOND
    assert refused == 1  # streams as short as these are soon known to end before the told time
    for number in range(5):  # they begin to come back
        scripted.ask(f"running again {number}")
        wait = scripted.ask(f"back {number}")[1]
        scripted.settle(f"running again {number}")
        scripted.now += wait
        assert scripted.ask(f"returned {number}", f"print of back {number}", retry=True)[0] == "ok"
        scripted.settle(f"returned {number}")
    scripted.ask("running")
    wait = scripted.ask("waiter")[1]
    scripted.settle("running")
    scripted.now += wait
    assert scripted.ask("newcomer")[0] == "streams"


def test_a_key_with_nothing_running_is_soon_free_for_anybody(client: redis.Redis, make_key) -> None:
    """Callers that never come back, each with a request of its own, do not keep an idle key closed to one another."""
    scripted = Scripted(client, make_key(concurrency=1))
    scripted.ask("running")
    for number in range(20):
        scripted.now += SECOND // 2
        assert scripted.ask(f"impatient {number}")[0] == "streams"
    scripted.settle("running")
    tries = 0
    while scripted.ask(f"newcomer {tries}")[0] != "ok":
        tries += 1
        scripted.now += SECOND // 2
    assert tries <= 30


def test_a_stream_that_ends_late_moves_the_promise(scripted: Scripted) -> None:
    scripted.ask("running")
    wait = scripted.ask("b")[1]
    scripted.now += wait
    status, more = scripted.ask("b again", "print of b", retry=True)[:2]
    assert status == "streams"
    assert more >= SECOND
    scripted.settle("running")
    assert scripted.ask("newcomer")[0] == "streams"  # still held
    scripted.now += more
    assert scripted.ask("b at last", "print of b", retry=True)[0] == "ok"


def test_where_the_minute_is_full_too_a_place_in_it_is_kept(client: redis.Redis, make_key) -> None:
    scripted = Scripted(client, make_key(requests=1, concurrency=1))
    scripted.ask("running")
    status, wait = scripted.ask("b")[:2]
    assert (status, wait) == ("streams", scripted.window)  # a stream in 10 s, a place in the window then too
    scripted.settle("running")
    scripted.now += wait
    assert scripted.ask("newcomer")[0] == "streams"
    assert scripted.ask("b again", "print of b", retry=True)[0] == "ok"
