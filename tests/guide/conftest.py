from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.guide_examples import GUIDE, SEED, Example, read
from tests.support.stack import Gateway, Simulator

from . import site
from .stacks import RATE, SLOW, Stack, named_by_environment, own_stack

_FOREIGN_TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A stack that is not ours may run a real model on a CPU: patience."""
    for item in items:
        if item.path.parent == Path(__file__).parent and named_by_environment() is not None:
            item.add_marker(pytest.mark.timeout(_FOREIGN_TIMEOUT_S))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack in CLOUDACH_BASE_URL and CLOUDACH_API_KEY, otherwise one of our own."""
    foreign = named_by_environment()
    if foreign is not None:
        yield foreign
        return
    with own_stack() as own:
        yield own


@pytest.fixture
def own(stack: Stack) -> Iterator[tuple[Simulator, Gateway]]:
    """Simulator and gateway of our own stack, without faults before and after."""
    if stack.own is None:
        pytest.skip("needs faults, limits or counts of a stack of our own, and CLOUDACH_BASE_URL names another")
    stack.own[0].reset()
    yield stack.own
    stack.own[0].reset()


@pytest.fixture
def slow(own: tuple[Simulator, Gateway]) -> Iterator[tuple[Simulator, Gateway]]:
    """`own`, with an engine whose answers are not soon at their end."""
    own[0].configure(rate=SLOW)
    yield own
    own[0].configure(rate=RATE)


@pytest.fixture(scope="session")
def next_url(stack: Stack, guide: dict[str, Example], seed: dict[str, Example]) -> Iterator[str]:
    """The address of the site of `site.py`, each route compiled."""
    with site.folder(guide, seed) as project, site.serve(project, stack) as server:
        for path in ("/api/chat", "/api/seed", "/", "/seed"):
            httpx.get(server.url + path, timeout=120)
        yield server.url


@pytest.fixture(scope="session")
def guide() -> dict[str, Example]:
    return read(GUIDE)


@pytest.fixture(scope="session")
def seed() -> dict[str, Example]:
    return read(SEED)
