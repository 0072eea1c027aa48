"""The guide's synchronous and asyncio programs, and the first guide's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.guide_examples import Example
from tests.support.stack import Gateway, Simulator
from tests.support.waiting import until

from .programs import Run, run
from .stacks import RATE, SLOW, Answer, Stack, write

POEM = "Write a poem about the ocean."
RECURSION = "Explain recursion briefly."
GREETING = "Hello!"


def _run(code: str, stack: Stack, folder: Path, **env: str) -> Run:
    return run([sys.executable, write(folder, "example.py", code)], env=stack.env(**env), cwd=folder, patience_s=500)


def _as_is(text: str) -> str:
    return text + "\n"


def _with_length(text: str) -> str:
    return f"{text}\n\nTotal characters: {len(text)}\n"


def _assert_streamed(done: Run, stack: Stack, answer: Answer | None, shown: Callable[[str], str]) -> None:
    assert done.status == 0, done.errors
    assert done.errors == ""
    if answer is None:
        assert len(done.output.pieces) > 2
        return
    assert done.output.text == shown(answer.text)
    if stack.own is not None:
        done.output.assert_one_by_one(answer.completion_tokens, RATE)


@pytest.mark.parametrize(
    ("name", "prompt", "shown"),
    [
        ("basic.py", POEM, _as_is),
        ("collect.py", RECURSION, _with_length),
        ("retry.py", GREETING, _as_is),
        ("mid_stream.py", POEM, _as_is),
        ("async_stream.py", RECURSION, _as_is),
    ],
)
def test_streams_token_by_token(
    stack: Stack, guide: dict[str, Example], tmp_path: Path, name: str, prompt: str, shown: Callable[[str], str]
) -> None:
    done = _run(guide[name].code, stack, tmp_path)
    _assert_streamed(done, stack, stack.answer(prompt), shown)


def test_takes_the_model_from_the_environment(stack: Stack, guide: dict[str, Example], tmp_path: Path) -> None:
    done = _run(guide["basic.py"].code, stack, tmp_path, CLOUDACH_MODEL="no-such-model")
    assert done.status == 1
    assert "NotFoundError" in done.errors
    assert "The model `no-such-model` does not exist" in done.errors


def test_prints_the_usage_of_the_extra_chunk(stack: Stack, guide: dict[str, Example], tmp_path: Path) -> None:
    done = _run(guide["usage.py"].code, stack, tmp_path)
    assert done.status == 0, done.errors
    answer = stack.answer(RECURSION)
    if answer is None:
        assert "\n\nTokens: " in done.output.text
    else:
        figures = f"Tokens: {answer.prompt_tokens} in, {answer.completion_tokens} out"
        assert done.output.text == f"{answer.text}\n\n{figures}\n"


def test_leaving_the_stream_ends_the_engines_work(
    stack: Stack, slow: tuple[Simulator, Gateway], guide: dict[str, Example], tmp_path: Path
) -> None:
    sim, _ = slow
    answer = stack.answer(POEM)
    assert answer is not None
    assert len(answer.text) > 80
    sim.reset()
    sim.configure(rate=SLOW)
    done = _run(guide["cancel.py"].code, stack, tmp_path)
    assert done.status == 0, done.errors
    assert answer.text.startswith(done.output.text.rstrip("\n"))
    assert 40 <= len(done.output.text.rstrip("\n")) < len(answer.text)
    until(lambda: sim.stats()["running"] == 0)
    stats = sim.stats()
    assert stats["aborted_total"] == 1
    assert stats["generated_tokens_total"] < answer.completion_tokens


# The first guide's programs. Its second and third go on from its first.


def test_the_first_guides_basic_program(stack: Stack, seed: dict[str, Example], tmp_path: Path) -> None:
    _assert_streamed(_run(seed["basic.py"].code, stack, tmp_path), stack, stack.answer(POEM), _as_is)


@pytest.mark.parametrize(
    ("name", "prompt", "shown"), [("collect.py", RECURSION, _with_length), ("retry.py", GREETING, _as_is)]
)
def test_the_first_guides_further_programs(
    stack: Stack, seed: dict[str, Example], tmp_path: Path, name: str, prompt: str, shown: Callable[[str], str]
) -> None:
    done = _run(seed["basic.py"].code + seed[name].code, stack, tmp_path)
    poem = stack.answer(POEM)
    _assert_streamed(done, stack, stack.answer(prompt), lambda text: _as_is(poem.text if poem else "") + shown(text))


def test_the_first_guides_async_function(stack: Stack, seed: dict[str, Example], tmp_path: Path) -> None:
    call = f'asyncio.run(stream_response("{RECURSION}"))\n'
    done = _run(seed["chat.py"].code + call, stack, tmp_path)
    _assert_streamed(done, stack, stack.answer(RECURSION), _as_is)
