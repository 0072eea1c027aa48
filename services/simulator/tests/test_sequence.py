from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cloudach_simulator import template, tokenizer
from cloudach_simulator.generate import start_state
from cloudach_simulator.sequence import Output, Sampling, Sequence
from cloudach_simulator.vocabulary import EOS, PIECES, SIZE, SPECIAL
from hypothesis import given, settings
from hypothesis import strategies as st

prompts = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=40)


def run(prompt: list[int], sampling: Sampling, index: int = 0) -> tuple[Output, list[Output]]:
    sequence = Sequence(sampling, start_state(prompt), prompt[-1], tokenizer.unfinished(prompt), index)
    whole, steps = Output("", []), []
    while not sequence.finished:
        step = sequence.step()
        steps.append(dataclasses.replace(step, ids=list(step.ids)))
        whole.merge(step)
    assert sequence.count == len(whole.ids)
    return whole, steps


def prompt_of(text: str) -> list[int]:
    return template.render([{"role": "user", "content": text}], None)


@settings(max_examples=60, deadline=None)
@given(prompts, st.integers(1, 60), st.booleans(), st.integers(0, 30))
def test_a_continuation_by_ids_gives_the_remaining_tokens_at_every_cut(
    prompt: list[int], length: int, ignore_eos: bool, minimum: int
) -> None:
    sampling = Sampling(length, min_tokens=min(minimum, length), ignore_eos=ignore_eos)
    whole, _ = run(prompt, sampling)
    for cut in range(1, len(whole.ids)):
        rest = dataclasses.replace(sampling, max_tokens=length - cut, min_tokens=max(0, sampling.min_tokens - cut))
        continued, _ = run(prompt + whole.ids[:cut], rest)
        assert continued.ids == whole.ids[cut:]
        assert continued.finish_reason == whole.finish_reason
        assert continued.stop_reason == whole.stop_reason


@settings(max_examples=60, deadline=None)
@given(prompts, st.integers(1, 120))
def test_no_text_comes_out_before_its_character_is_complete(prompt: list[int], length: int) -> None:
    prompt = [*prompt, 10]
    whole, steps = run(prompt, Sampling(length, ignore_eos=True))
    assert all("\ufffd" not in step.text for step in steps)
    complete = b"".join(PIECES[i] for i in whole.ids if i not in SPECIAL).decode("utf-8", "ignore")
    assert whole.text == complete


def test_multi_byte_characters_are_really_split_over_tokens() -> None:
    whole, steps = run(prompt_of("emoji"), Sampling(4000, ignore_eos=True))
    held = [step for step in steps if not step.text and step.ids != [EOS]]
    assert len(held) > 50
    assert any(ord(c) > 0xFFFF for c in whole.text)
    assert any(0x4E00 < ord(c) < 0x9FFF for c in whole.text)


def test_a_cut_within_a_character_brings_the_prompt_back_as_vllm_does() -> None:
    # Tried with the tokenizers library that vLLM uses: its stream decoder cannot tell the prompt's part from the new.
    prompt = prompt_of("emoji")
    whole, steps = run(prompt, Sampling(400, ignore_eos=True))
    cut = next(i for i, step in enumerate(steps) if step.ids[0] >= 0x80 and step.ids[0] < 256) + 1
    so_far = prompt + whole.ids[:cut]
    continued, _ = run(so_far, Sampling(400 - cut, ignore_eos=True))
    assert continued.ids == whole.ids[cut:]
    before = tokenizer.decode(so_far)
    assert before.endswith("\ufffd")
    assert continued.text.startswith(before.rstrip("\ufffd"))


@settings(max_examples=80, deadline=None)
@given(st.text("abcxyz ", min_size=1), st.integers(0, 400), st.integers(1, 25), st.booleans())
def test_a_stop_string_ends_the_answer_wherever_its_tokens_split(text: str, at: int, size: int, include: bool) -> None:
    prompt = prompt_of(text)
    plain, _ = run(prompt, Sampling(150, ignore_eos=True))
    stop = plain.text[at : at + size]
    if not stop:
        return
    end = plain.text.find(stop)
    whole, steps = run(prompt, Sampling(150, ignore_eos=True, stop=(stop, "never there"), include_stop=include))
    assert whole.text == plain.text[: end + (len(stop) if include else 0)]
    assert (whole.finish_reason, whole.stop_reason) == ("stop", stop)
    assert "".join(step.text for step in steps) == whole.text
    assert whole.ids == plain.ids[: len(whole.ids)]


def test_the_stop_string_that_completes_first_wins() -> None:
    plain, _ = run(prompt_of("first"), Sampling(60, ignore_eos=True))
    long, short = plain.text[4:20], plain.text[10:14]
    whole, _ = run(prompt_of("first"), Sampling(60, ignore_eos=True, stop=(long, short)))
    assert whole.stop_reason == short
    assert whole.text == plain.text[: plain.text.find(short)]


def test_stop_token_ids_end_the_answer_and_are_told_as_reason() -> None:
    plain, _ = run(prompt_of("ids"), Sampling(50, ignore_eos=True))
    token = plain.ids[20]
    whole, _ = run(prompt_of("ids"), Sampling(50, ignore_eos=True, stop_token_ids=frozenset({token})))
    first = plain.ids.index(token)
    assert whole.ids == plain.ids[: first + 1]
    assert (whole.finish_reason, whole.stop_reason) == ("stop", token)
    assert whole.text == tokenizer.decode(plain.ids[:first])


@pytest.mark.parametrize("minimum", [1, 40, 200])
def test_min_tokens_bars_the_end_until_then(minimum: int) -> None:
    for number in range(20):
        whole, _ = run(prompt_of(f"m{number}"), Sampling(400, min_tokens=minimum))
        assert len(whole.ids) >= minimum
        assert EOS not in whole.ids[: minimum - 1]


def test_answers_end_by_themselves_at_various_lengths() -> None:
    lengths = {len(run(prompt_of(f"q{i}"), Sampling(5000))[0].ids) for i in range(60)}
    assert len(lengths) > 30
    assert 30 < sum(lengths) / len(lengths) < 400


def test_the_length_limit_is_told() -> None:
    whole, _ = run(prompt_of("x"), Sampling(3, ignore_eos=True))
    assert (len(whole.ids), whole.finish_reason, whole.stop_reason) == (3, "length", None)


def test_seed_index_and_penalties_change_the_answer_and_repeat() -> None:
    prompt = prompt_of("seeds")
    variants = [
        (Sampling(30, ignore_eos=True), 0),
        (Sampling(30, ignore_eos=True), 1),
        (Sampling(30, ignore_eos=True, seed=1), 0),
        (Sampling(30, ignore_eos=True, seed=2), 0),
        (Sampling(30, ignore_eos=True, seed=1), 1),
        (Sampling(30, ignore_eos=True, penalised=True), 0),
    ]
    answers = [tuple(run(prompt, sampling, index)[0].ids) for sampling, index in variants]
    assert len(set(answers)) == len(variants)
    assert answers == [tuple(run(prompt, sampling, index)[0].ids) for sampling, index in variants]


@pytest.mark.parametrize("bound", [{"seed": 7}, {"penalised": True}])
def test_what_is_bound_to_the_request_does_not_carry_over_to_a_continuation(bound: dict[str, Any]) -> None:
    prompt = prompt_of("bound")
    whole, _ = run(prompt, Sampling(40, ignore_eos=True, **bound))
    continued, _ = run(prompt + whole.ids[:20], Sampling(20, ignore_eos=True, **bound))
    assert continued.ids != whole.ids[20:]


def test_a_script_is_followed_and_then_ends() -> None:
    script = (*tokenizer.encode('{"a": 1}'), EOS)
    whole, _ = run(prompt_of("s"), Sampling(100, script=script))
    assert (whole.text, tuple(whole.ids), whole.finish_reason) == ('{"a": 1}', script, "stop")
