"""The guide's route handler in real Next.js with the real Node SDK."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from tests.support.guide_examples import Example
from tests.support.stack import Gateway, Simulator
from tests.support.waiting import until

from .programs import Arrivals
from .site import PACKAGES, node, site_root
from .stacks import RATE, Stack, write

PROMPT = "Hello!"

# The guide's handler and the first guide's: site.py lays out "route.ts" of both.
both = pytest.mark.parametrize("path", ["/api/chat", "/api/seed"])


@both
def test_passes_the_tokens_on_as_they_come(stack: Stack, next_url: str, path: str) -> None:
    answer = stack.answer(PROMPT)
    arrivals = Arrivals([], [])
    with httpx.stream("POST", next_url + path, json={"prompt": PROMPT}, timeout=300) as response:
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


@both
def test_a_browser_that_leaves_ends_the_engines_work(slow: tuple[Simulator, Gateway], next_url: str, path: str) -> None:
    sim, _ = slow
    with httpx.stream("POST", next_url + path, json={"prompt": PROMPT}, timeout=300) as response:
        pieces = response.iter_raw()
        next(pieces)
        assert sim.stats()["running"] == 1
    until(lambda: sim.stats()["running"] == 0)
    assert sim.stats()["aborted_total"] == 1


@both
def test_an_error_in_mid_stream_is_no_clean_end(
    stack: Stack, own: tuple[Simulator, Gateway], next_url: str, path: str
) -> None:
    sim, _ = own
    sim.arm("close@10")
    with (
        httpx.stream("POST", next_url + path, json={"prompt": PROMPT}, timeout=300) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        for _ in response.iter_raw():
            pass


def test_the_handler_passes_the_strict_type_check(guide: dict[str, Example]) -> None:
    options = "--noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler --target es2022 --types node"
    compiler = PACKAGES / "node_modules" / "typescript" / "bin" / "tsc"
    with tempfile.TemporaryDirectory(dir=site_root()) as folder:
        command = [node(), compiler, *options.split(), write(Path(folder), "route.ts", guide["route.ts"].code)]
        done = subprocess.run(command, cwd=PACKAGES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
