from __future__ import annotations

from dataclasses import replace

import pytest
from cloudach_gateway.errors import UpstreamError
from cloudach_gateway.proxy.conversation import hopeless
from cloudach_gateway.proxy.placing.cause import Cause
from cloudach_gateway.proxy.placing.failover import (
    PROGRESS,
    FailoverBudget,
    FailoverLimits,
    GiveUp,
    RetryAfter,
    Verdict,
)
from hypothesis import given
from hypothesis import strategies as st

LIMITS = FailoverLimits(attempts=4, budget_s=10.0, spread_s=0.25)
LOSSES = [Cause.LOST, Cause.ENGINE_ERROR]


def budget(*, draw: float = 1.0, limits: FailoverLimits = LIMITS) -> FailoverBudget:
    return FailoverBudget(limits, lambda: draw)


def reason(verdict: Verdict) -> str:
    assert isinstance(verdict, GiveUp), verdict
    return verdict.reason


def delay(verdict: Verdict) -> float:
    assert isinstance(verdict, RetryAfter), verdict
    return verdict.delay_s


def test_streams_that_break_together_do_not_come_back_together() -> None:
    delays = [delay(budget(draw=i / 100).broke(0, Cause.LOST, new_tokens=50, alone=False)) for i in range(101)]
    assert delays == [pytest.approx(LIMITS.spread_s * i / 100) for i in range(101)]


def test_the_wait_doubles_up_to_a_bound() -> None:
    one = budget(limits=FailoverLimits(attempts=9, budget_s=100, spread_s=0.25))
    delays = [delay(one.broke(0, Cause.REFUSED, new_tokens=0, alone=False)) for _ in range(8)]
    assert delays == pytest.approx([0.25, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_placements_without_progress_are_numbered() -> None:
    one = budget(draw=0)
    verdicts = [one.broke(0, Cause.STALLED, new_tokens=n, alone=False) for n in (100, 0, PROGRESS - 1, 0, 0)]
    assert [isinstance(verdict, RetryAfter) for verdict in verdicts] == [True] * 4 + [False]
    assert reason(verdicts[-1]) == "no attempt is left"


def test_progress_starts_the_effort_anew() -> None:
    one = budget(draw=0)
    for _ in range(50):
        assert isinstance(one.broke(0, Cause.STALLED, new_tokens=0, alone=False), RetryAfter)
        assert isinstance(one.broke(0, Cause.STALLED, new_tokens=PROGRESS, alone=False), RetryAfter)


def test_refusals_cost_time_but_no_placement() -> None:
    one = budget(draw=0)
    assert isinstance(one.broke(0, Cause.LOST, new_tokens=9, alone=False), RetryAfter)
    for tick in range(95):
        assert isinstance(one.broke(tick / 10, Cause.REFUSED, new_tokens=0, alone=False), RetryAfter)
    assert reason(one.broke(9.6, Cause.REFUSED, new_tokens=0, alone=False)) == "no time is left"


@given(draws=st.lists(st.floats(0, 1), min_size=1))
def test_the_whole_budget_is_used_and_no_more(draws: list[float]) -> None:
    """Whatever the waits, and though the longest is a good part of it."""
    left = list(draws)
    one = FailoverBudget(FailoverLimits(budget_s=3.0), lambda: left.pop() if left else 0.5)
    now = 0.0
    verdict = one.broke(now, Cause.LOST, new_tokens=9, alone=False)
    while isinstance(verdict, RetryAfter):
        now += verdict.delay_s
        assert now <= 3.0
        verdict = one.broke(now, Cause.REFUSED, new_tokens=0, alone=False)
    assert reason(verdict) == "no time is left"
    assert now >= 0.95 * 3.0


def test_only_time_without_an_engine_counts() -> None:
    one = budget(draw=0)
    now = 0.0
    for placement in range(3):
        assert isinstance(one.broke(now, Cause.STALLED, new_tokens=0, alone=False), RetryAfter), placement
        now += 3  # to find an engine
        one.placed(now)
        now += 1000  # with it
    assert isinstance(one.broke(now, Cause.STALLED, new_tokens=0, alone=False), RetryAfter)
    assert reason(one.broke(now + 1.1, Cause.REFUSED, new_tokens=0, alone=False)) == "no time is left"


@pytest.mark.parametrize("loss", LOSSES)
def test_the_second_victim_ends_it_when_nobody_else_can_be_to_blame(loss: Cause) -> None:
    one = budget()
    assert one.broke(0, loss, new_tokens=0, alone=True) == RetryAfter(0.25)
    assert reason(one.broke(1, loss, new_tokens=1, alone=True)) == "the request ended two engines"


@pytest.mark.parametrize("loss", LOSSES)
def test_among_several_suspects_each_is_tried_alone(loss: Cause) -> None:
    one = budget()
    assert one.broke(0, loss, new_tokens=500, alone=False) == RetryAfter(0.25)
    assert one.broke(1, loss, new_tokens=0, alone=False) == RetryAfter(0.1, must_be_alone=True)
    assert reason(one.broke(2, loss, new_tokens=0, alone=True)) == "the request ended three engines"


def test_the_client_is_told_not_to_retry_only_what_ends_engines() -> None:
    killer, unlucky = budget(), budget(limits=FailoverLimits(attempts=1, budget_s=10))
    killer.broke(0, Cause.LOST, new_tokens=0, alone=True)
    unlucky.broke(0, Cause.STALLED, new_tokens=0, alone=True)
    for one, cause, retried in ((killer, Cause.LOST, [(b"x-should-retry", b"false")]), (unlucky, Cause.STALLED, [])):
        verdict = one.broke(1, cause, new_tokens=0, alone=True)
        assert isinstance(verdict, GiveUp)
        worded_otherwise = replace(verdict, reason="enough")
        assert hopeless(UpstreamError("No."), worded_otherwise).retry_headers() == retried


def test_a_suspect_stays_one_while_no_engine_takes_it() -> None:
    one = budget()
    one.broke(0, Cause.LOST, new_tokens=500, alone=False)
    one.broke(1, Cause.LOST, new_tokens=0, alone=False)
    for _ in range(3):
        verdict = one.broke(1, Cause.REFUSED, new_tokens=0, alone=False)
        assert isinstance(verdict, RetryAfter)
        assert verdict.must_be_alone


def test_progress_clears_a_suspect() -> None:
    one = budget()
    one.broke(0, Cause.LOST, new_tokens=500, alone=False)
    one.broke(1, Cause.LOST, new_tokens=0, alone=False)
    assert one.broke(2, Cause.LOST, new_tokens=PROGRESS, alone=True) == RetryAfter(0.25)
    assert one.broke(3, Cause.LOST, new_tokens=0, alone=False) == RetryAfter(0.1, must_be_alone=True)


def test_who_ends_engines_with_its_second_token_is_found_out() -> None:
    one = budget()
    assert isinstance(one.broke(0, Cause.LOST, new_tokens=700, alone=True), RetryAfter)
    assert reason(one.broke(1, Cause.LOST, new_tokens=1, alone=True)) == "the request ended two engines"


@pytest.mark.parametrize("cause", [Cause.STALLED, Cause.MIGRATED, Cause.REFUSED, Cause.REDRAWN])
def test_what_is_no_victim(cause: Cause) -> None:
    one = budget(limits=FailoverLimits(attempts=100, budget_s=1000))
    one.broke(0, Cause.LOST, new_tokens=0, alone=True)
    for _ in range(20):
        verdict = one.broke(1, cause, new_tokens=0, alone=True)
        assert isinstance(verdict, RetryAfter)
        assert not verdict.must_be_alone


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause.is_final])
def test_what_another_engine_would_do_no_better_is_not_tried_again(cause: Cause) -> None:
    assert reason(budget().broke(0, cause, new_tokens=0, alone=False)) == cause.value


breaks = st.tuples(
    st.sampled_from([cause for cause in Cause if cause.is_failure and not cause.is_final]),
    st.integers(0, 3 * PROGRESS),
    st.booleans(),
    st.floats(0, 5),
)


@given(history=st.lists(breaks, max_size=60), draw=st.floats(0, 1))
def test_bounds_hold_whatever_happens(history: list[tuple[Cause, int, bool, float]], draw: float) -> None:
    one = budget(draw=draw)
    now = without_s = 0.0
    placements = victims = 0
    for cause, new_tokens, alone, searching_s in history:
        if new_tokens >= PROGRESS:
            placements, victims, without_s = 0, 0, 0.0
        victims += cause.is_loss
        placements += not cause.untaken
        verdict = one.broke(now, cause, new_tokens=new_tokens, alone=alone)
        if isinstance(verdict, GiveUp):
            break
        assert victims < 2 or (victims == 2 and not alone) or not cause.is_loss
        assert placements <= LIMITS.attempts
        assert 0 <= verdict.delay_s <= 2.0
        assert without_s + verdict.delay_s <= LIMITS.budget_s + 1e-6
        assert verdict.must_be_alone == (victims == 2)
        now += verdict.delay_s + searching_s
        without_s += verdict.delay_s + searching_s
        one.placed(now)
        now += 7
