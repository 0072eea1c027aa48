"""The guide's FastAPI endpoint under uvicorn."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.guide_examples import Example
from tests.support.processes import Server
from tests.support.stack import Gateway, Simulator
from tests.support.waiting import until

from .programs import Arrivals
from .stacks import RATE, Stack, write

PROMPT = "Hello!"

_READY = re.compile(r"Uvicorn running on (http://\S+)")


@pytest.fixture(scope="module", params=["guide", "seed"])
def endpoint(request: pytest.FixtureRequest, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of /chat, by this guide's program and by the first one's."""
    examples: dict[str, Example] = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("fastapi")
    write(folder, "chat.py", examples["chat.py"].code)
    command = [sys.executable, "-m", "uvicorn", "chat:app", "--port", "0"]
    with Server(command, env=stack.env(), cwd=folder, ready=_READY) as server:
        yield f"{server.url}/chat"


def test_passes_the_tokens_on_as_they_come(stack: Stack, endpoint: str) -> None:
    answer = stack.answer(PROMPT)
    arrivals = Arrivals([], [])
    with httpx.stream("GET", endpoint, params={"prompt": PROMPT}, timeout=300) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        for piece in response.iter_raw():
            arrivals.pieces.append(piece)
            arrivals.times.append(time.monotonic())
    if answer is None:
        assert len(arrivals.pieces) > 2
        return
    assert arrivals.text == answer.text
    if stack.own is not None:
        arrivals.assert_one_by_one(answer.completion_tokens, RATE)


def test_a_browser_that_leaves_ends_the_engines_work(slow: tuple[Simulator, Gateway], endpoint: str) -> None:
    sim, _ = slow
    with httpx.stream("GET", endpoint, params={"prompt": PROMPT}, timeout=300) as response:
        pieces = response.iter_raw()
        next(pieces)
        assert sim.stats()["running"] == 1
    until(lambda: sim.stats()["running"] == 0)
    assert sim.stats()["aborted_total"] == 1
