"""What the guide says of errors, seen from its programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.guide_examples import Example
from tests.support.stack import Gateway, Simulator

from .programs import run
from .stacks import Stack, write

POEM = "Write a poem about the ocean."


@pytest.mark.parametrize("fault", ["error@10", "close@10", "end@10"])
def test_keeps_what_came_before_an_error(
    stack: Stack, own: tuple[Simulator, Gateway], guide: dict[str, Example], tmp_path: Path, fault: str
) -> None:
    sim, _ = own
    answer = stack.answer(POEM)
    assert answer is not None
    sim.arm(fault)
    program = write(tmp_path, "mid_stream.py", guide["mid_stream.py"].code)
    done = run([sys.executable, program], env=stack.env(), cwd=tmp_path)
    assert done.status == 0, done.errors
    kept, _, notice = done.output.text.partition("\n\nBroke off after ")
    assert kept
    assert answer.text.startswith(kept)
    assert kept != answer.text
    assert " chunks: " in notice


def test_an_error_in_mid_stream_is_an_exception_during_iteration(
    stack: Stack, own: tuple[Simulator, Gateway], seed: dict[str, Example], tmp_path: Path
) -> None:
    sim, _ = own
    answer = stack.answer(POEM)
    assert answer is not None
    sim.arm("error@10")
    program = write(tmp_path, "basic.py", seed["basic.py"].code)
    done = run([sys.executable, program], env=stack.env(), cwd=tmp_path)
    assert done.status == 1
    assert "openai.APIError" in done.errors
    assert "for chunk in stream" in done.errors
    assert done.output.text
    assert answer.text.startswith(done.output.text)


@pytest.mark.parametrize("source", ["guide", "seed"])
def test_an_error_before_the_stream_is_an_http_error_and_not_retried_in_vain(
    request: pytest.FixtureRequest, stack: Stack, tmp_path: Path, source: str
) -> None:
    examples: dict[str, Example] = request.getfixturevalue(source)
    code = examples["retry.py"].code
    if source == "seed":
        code = "import os\n" + code
    env = stack.env(CLOUDACH_API_KEY=stack.api_key[:-1] + ("a" if stack.api_key[-1] != "a" else "b"))
    done = run([sys.executable, write(tmp_path, "retry.py", code)], env=env, cwd=tmp_path)
    assert done.status == 1
    assert "openai.AuthenticationError" in done.errors
    assert "Incorrect API key provided" in done.errors
    assert done.output.text == ""
