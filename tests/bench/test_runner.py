"""What a contender is given after a load was too much for it."""

from __future__ import annotations

import pytest

from tests.bench.machine import Cores
from tests.bench.plan import Plan
from tests.bench.results import Saturation
from tests.bench.runner import Rounds, _too_much
from tests.bench.workloads import workloads


def given(saturation: Saturation | None) -> dict[str, int | None]:
    """Streams by workload; None where the contender gets nothing."""
    rounds = Rounds(("haproxy",), Plan(), Cores(0, 1, 1), say=print)
    if saturation is not None:
        rounds.results.saturations.append(saturation)
    found = {}
    for at_once in (False, True):
        for workload in workloads(Plan(), at_once=at_once):
            gets = rounds._given("haproxy", workload)
            found[workload.name] = gets.streams if gets else None
    return found


def test_one_that_takes_all_gets_all() -> None:
    assert given(None).items() >= {"1 paced": 1, "64 paced": 64, "256 paced": 256, "1000 paced": 1000}.items()


def test_one_that_collapses_early_gets_half_of_what_it_relayed_for_its_cost() -> None:
    found = given(Saturation("haproxy", 64, 0, 1600.0, 1.0))
    assert found.items() >= {"1 paced": 1, "64 paced": None, "256 paced": 16, "1000 paced": None}.items()
    assert found["burst"] is None
    assert found["flat out"] == found["flat out in blocks"] == 0


def test_one_that_collapses_at_the_end_loses_only_the_end() -> None:
    found = given(Saturation("haproxy", 1000, 10, 20_000.0, 1.0))
    assert found.items() >= {"256 paced": 256, "1000 paced": None, "burst": 256}.items()


@pytest.mark.parametrize(
    ("finished", "chunks", "busy", "too_much"),
    [
        (64, 3000.0, 0.99, False),
        (63, 3000.0, 0.2, True),
        (64, 2000.0, 0.99, True),
        (64, 2000.0, 0.3, False),
    ],
)
def test_too_much_is_late_streams_or_a_full_core_that_falls_behind(
    finished: int, chunks: float, busy: float, too_much: bool
) -> None:
    figures = {"streams": 64, "streams_finished": finished, "chunks_per_s": chunks, "chunks_expected_per_s": 3200.0}
    assert _too_much({**figures, "proxy_busy": busy}) is too_much


def test_loads_without_a_pace_are_never_too_much() -> None:
    assert not _too_much({"chunks_per_s": 5.0, "proxy_busy": 1.0})
    assert not _too_much({"streams": 1000, "streams_open": 10})
