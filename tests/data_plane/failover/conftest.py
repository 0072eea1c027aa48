"""Four engines for the whole folder, and gateways before two, three and four of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.data_plane.failover.fleet import Fleet, fleet_of
from tests.support.stack import Simulator, start_sim


@pytest.fixture(scope="package")
def engines() -> Iterator[list[Simulator]]:
    with ExitStack() as stack:
        yield [stack.enter_context(start_sim(rate=300, model="sim", max_model_len=2000)) for _ in range(4)]


@pytest.fixture(scope="package")
def two_engines(engines: list[Simulator]) -> Iterator[Fleet]:
    with fleet_of(engines[:2]) as fleet:
        yield fleet


@pytest.fixture(scope="package")
def three_engines(engines: list[Simulator]) -> Iterator[Fleet]:
    with fleet_of(engines[:3]) as fleet:
        yield fleet


@pytest.fixture(scope="package")
def four_engines(engines: list[Simulator]) -> Iterator[Fleet]:
    with fleet_of(engines) as fleet:
        yield fleet


@pytest.fixture
def two(two_engines: Fleet) -> Fleet:
    two_engines.reset()
    return two_engines


@pytest.fixture
def three(three_engines: Fleet) -> Fleet:
    three_engines.reset()
    return three_engines


@pytest.fixture
def four(four_engines: Fleet) -> Fleet:
    four_engines.reset()
    return four_engines
