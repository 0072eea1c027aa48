"""What a gateway remembers of upstreams that come and go: for months, each pod with an address of its own."""

from __future__ import annotations

from cloudach_gateway.proxy.placing.balance import Balancer
from cloudach_gateway.proxy.placing.fading import Fading
from cloudach_gateway.proxy.placing.simultaneous_breaks import SimultaneousBreaks
from cloudach_gateway.proxy.placing.suspects import Suspects

MANY = 5000


def never() -> bool:
    return False


def test_the_balancer_forgets_who_is_idle() -> None:
    now = 0.0
    balancer = Balancer(clock=lambda: now)
    for number in range(MANY):
        now = number * 0.5
        upstream = f"http://10.0.0.{number}:8000"
        for _ in range(3):
            balancer.connects(upstream)
        balancer.began(upstream)
        balancer.began(upstream)
        balancer.ended(upstream, failed=False)
        balancer.refused(upstream)
        balancer.ended(upstream, failed=number % 2 == 0)
    assert balancer._running == balancer._connecting == {}
    assert len(balancer._failed) <= 3
    assert len(balancer._unreached) <= 121


def test_what_the_balancer_knows_of_those_that_are_there() -> None:
    now = 0.0
    balancer = Balancer(clock=lambda: now)
    for upstream in ("a", "b"):
        balancer.connects(upstream)
        balancer.began(upstream)
    balancer.ended("b", failed=True)
    assert {balancer.pick(["a", "b"]) for _ in range(4)} == {"a"}, "who has just failed comes last, busy or not"
    now = 1.0
    assert {balancer.pick(["a", "b"]) for _ in range(4)} == {"b"}
    balancer.ended("a", failed=False)
    assert {balancer.pick(["a", "b"]) for _ in range(4)} == {"a", "b"}


def test_one_request_at_a_time_tries_who_could_not_be_reached() -> None:
    now = 0.0
    balancer = Balancer(clock=lambda: now)
    for upstream in ("a", "a"):
        balancer.connects(upstream)
        balancer.began(upstream)
    balancer.connects("b")
    balancer.refused("b")
    now = 1.0
    assert balancer.pick(["a", "b"]) == "b"
    balancer.connects("b")
    assert {balancer.pick(["a", "b"]) for _ in range(4)} == {"a"}
    assert balancer.pick(["b"]) == "b", "where there is no other, all try"
    balancer.began("b")
    balancer.connects("b")
    assert {balancer.pick(["a", "b"]) for _ in range(4)} == {"a", "b"}, "it is back"


def test_losses_are_remembered_for_a_moment() -> None:
    placements, breaks = Suspects(), SimultaneousBreaks()
    for number in range(MANY):
        upstream, now = f"http://10.0.0.{number}:8000", number * 0.5
        placement = placements.began(upstream, object(), never)
        placements.ended(placement, lost=True, now=now)
        assert placements.died_lately(upstream, now)
        assert breaks.count(upstream, now) == 1
    assert placements._suspects == {}
    assert max(len(placements._lost), len(placements._died), len(breaks._runs)) <= 4


def test_what_is_told_again_lasts_longer() -> None:
    fading: Fading[int] = Fading(10)
    fading.put("a", 1, now=0)
    fading.put("b", 2, now=5)
    fading.put("a", 3, now=8)
    assert (fading.get("a", now=17), fading.get("b", now=14), fading.get("b", now=15)) == (3, 2, None)
    fading.put("c", 4, now=16)
    assert len(fading) == 2
    fading.forget("a")
    fading.forget("never")
    assert fading.get("a", now=16) is None
