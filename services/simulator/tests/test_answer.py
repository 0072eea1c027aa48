"""Streams and whole answers, without a network."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from cloudach_simulator import request as requests
from cloudach_simulator.answer import StreamAnswer, WholeAnswer
from cloudach_simulator.config import SimConfig
from cloudach_simulator.errors import Refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from .asks import TOOLS

LIMITS = SimConfig(max_model_len=100_000).limits()


def chat(content: str = "Tell me", **fields: Any) -> requests.Ask:
    body = {"messages": [{"role": "user", "content": content}], **fields}
    return requests.read("/v1/chat/completions", body, LIMITS)


def completion(**fields: Any) -> requests.Ask:
    return requests.read("/v1/completions", fields, LIMITS)


def stream(ask: requests.Ask, steps: int = 1) -> list[bytes]:
    answer = StreamAnswer(ask, "id", 1)
    events: list[bytes] = []
    while not answer.complete:
        events += answer.events(steps)
    assert answer.sent == answer.generated
    return events


def chunks(events: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(event[6:]) for event in events if event != b"data: [DONE]\n\n"]


def told(events: list[bytes], index: int = 0) -> str:
    text = ""
    for chunk in chunks(events):
        for choice in chunk["choices"]:
            if choice["index"] == index:
                text += choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
    return text


def ids(events: list[bytes], index: int = 0) -> list[int]:
    return [
        token
        for chunk in chunks(events)
        for choice in chunk["choices"]
        if choice["index"] == index
        for token in choice.get("token_ids") or []
    ]


def whole(ask: requests.Ask) -> dict[str, Any]:
    answer = WholeAnswer(ask, "id", 1)
    while not answer.finished:
        answer.advance(7)
    return dict(json.loads(answer.body()))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"return_token_ids": True},
    {"return_token_ids": True, "stop": ["the", " s"]},
    {"n": 3, "return_token_ids": True},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"logprobs": True, "top_logprobs": 2},
    {"ignore_eos": True},
    {"stream_interval": 5, "return_token_ids": True},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("content", ["a", "b", "emoji"])
def test_the_grouping_of_steps_changes_no_byte(options: dict[str, Any], content: str) -> None:
    def ask() -> requests.Ask:
        return chat(content, stream=True, max_tokens=300, **options)

    one_by_one = stream(ask())
    assert stream(ask(), 4) == one_by_one
    assert stream(ask(), 10_000) == one_by_one
    answer, short_cut = StreamAnswer(ask(), "id", 1), []
    while not answer.complete:
        event = answer.one()
        short_cut += [event] if event is not None else answer.events(1)
    assert short_cut == one_by_one


@pytest.mark.parametrize("options", [o for o in OPTIONS if "stream_options" not in o])
def test_a_stream_and_a_whole_answer_tell_the_same(options: dict[str, Any]) -> None:
    events = stream(chat(stream=True, max_tokens=200, **options))
    body = whole(chat(max_tokens=200, **options))
    for choice in body["choices"]:
        assert told(events, choice["index"]) == choice["message"]["content"]
        assert ids(events, choice["index"]) == (choice["token_ids"] or [])
        last = [c for chunk in chunks(events) for c in chunk["choices"] if c["index"] == choice["index"]][-1]
        assert (last["finish_reason"], last["stop_reason"]) == (choice["finish_reason"], choice["stop_reason"])


def test_usage_counts_every_token_once() -> None:
    usage = {"include_usage": True}
    events = stream(chat(stream=True, n=2, temperature=1, max_tokens=90, return_token_ids=True, stream_options=usage))
    last = chunks(events)[-1]
    generated = len(ids(events, 0)) + len(ids(events, 1))
    prompt = len(chunks(events)[0]["prompt_token_ids"])
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": prompt,
        "total_tokens": prompt + generated,
        "completion_tokens": generated,
    }


@settings(max_examples=25, deadline=None)
@given(st.text("abcdef ", max_size=20), st.integers(2, 150), st.integers(0, 10_000))
def test_a_chat_stream_cut_anywhere_goes_on_by_a_completion(content: str, length: int, seed: int) -> None:
    events = stream(chat(content, stream=True, max_tokens=length, return_token_ids=True))
    prompt, generated = chunks(events)[0]["prompt_token_ids"], ids(events)
    cut = random.Random(seed).randrange(1, len(generated)) if len(generated) > 1 else 0
    if not cut:
        return
    rest = stream(
        completion(prompt=prompt + generated[:cut], max_tokens=length - cut, stream=True, return_token_ids=True)
    )
    assert ids(rest) == generated[cut:]
    so_far = "".join(
        choice["delta"].get("content") or "" for chunk in chunks(events)[: cut + 1] for choice in chunk["choices"]
    )
    if told(rest) and len(told(rest)) < len(told(events)):
        assert so_far + told(rest) == told(events)


def test_what_is_not_taken_in_time_is_merged_into_one_chunk() -> None:
    ask = chat("a", stream=True, max_tokens=50, ignore_eos=True, return_token_ids=True)
    expected = stream(chat("a", stream=True, max_tokens=50, ignore_eos=True, return_token_ids=True))
    answer = StreamAnswer(ask, "id", 1)
    events = answer.events(3)
    for _ in range(10):
        answer.skip(1)
    assert (answer.generated, answer.sent) == (13, 3)
    merged = answer.events(0)
    assert len(merged) == 1
    assert ids(merged) == ids(expected)[3:13]
    events += merged + answer.events(1000)
    assert told(events) == told(expected)
    assert ids(events) == ids(expected)


def test_a_model_calls_a_tool_by_itself_and_the_call_can_be_continued_at_every_token() -> None:
    options: dict[str, Any] = {"tools": TOOLS, "max_tokens": 100, "return_token_ids": True}
    events = stream(chat(stream=True, **options))
    deltas = [c["delta"] for chunk in chunks(events) for c in chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert calls[0]["function"] == {"name": "get_weather"}
    assert json.loads("".join(call["function"].get("arguments", "") for call in calls)) == {"city": "word"}
    assert chunks(events)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    prompt, generated = chunks(events)[0]["prompt_token_ids"], ids(events)
    for cut in range(1, len(generated)):
        rest = whole(completion(prompt=prompt + generated[:cut], max_tokens=100, return_token_ids=True))
        assert rest["choices"][0]["token_ids"] == generated[cut:]
    message = whole(chat(**options))["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "word"}'}


@pytest.mark.parametrize(
    ("choice", "streamed", "at_once"),
    [
        ("required", "tool_calls", "tool_calls"),
        ({"type": "function", "function": {"name": "get_weather"}}, "stop", "stop"),
    ],
)
def test_a_forced_call_comes_whatever_the_prompt(choice: Any, streamed: str, at_once: str) -> None:
    events = stream(chat(stream=True, tools=TOOLS, tool_choice=choice, max_tokens=100))
    assert chunks(events)[-1]["choices"][0]["finish_reason"] == streamed
    assert any(c["delta"].get("tool_calls") for chunk in chunks(events) for c in chunk["choices"])
    body = whole(chat(tools=TOOLS, tool_choice=choice, max_tokens=100))["choices"][0]
    assert body["finish_reason"] == at_once
    assert body["message"]["content"] == ""
    assert body["message"]["tool_calls"][0]["function"]["name"] == "get_weather"


def test_after_a_tools_answer_and_without_a_choice_of_tools_text_comes() -> None:
    for ask in (
        chat(tools=TOOLS, tool_choice="none", max_tokens=20),
        requests.read(
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "sunny"}],
                "tools": TOOLS,
                "max_tokens": 20,
            },
            LIMITS,
        ),
    ):
        message = whole(ask)["choices"][0]["message"]
        assert "tool_calls" not in message
        assert message["content"]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 6},
        "age": {"type": "integer", "minimum": 18},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2},
        "home": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "age", "tags", "home", "ok"],
}


def test_a_response_format_gives_json_that_fits() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    value = json.loads(whole(chat(response_format=form, max_tokens=200))["choices"][0]["message"]["content"])
    assert len(value["name"]) >= 6
    assert value["age"] >= 18
    assert value["tags"] == ["a", "a"]
    assert value["home"] is None
    assert value["ok"] is True
    free = whole(chat(response_format={"type": "json_object"}, max_tokens=200))["choices"][0]["message"]["content"]
    assert isinstance(json.loads(free), dict)


def test_echo_gives_the_prompt_back() -> None:
    plain = whole(completion(prompt="Hello", max_tokens=3))["choices"][0]["text"]
    assert whole(completion(prompt="Hello", max_tokens=3, echo=True))["choices"][0]["text"] == "Hello" + plain
    assert whole(completion(prompt="Hello", max_tokens=0, echo=True))["choices"][0]["text"] == "Hello"
    assert told(stream(completion(prompt="Hello", max_tokens=3, echo=True, stream=True))) == "Hello" + plain


def test_completion_logprobs_stand_beside_their_tokens() -> None:
    logprobs = whole(completion(prompt="Hello", max_tokens=5, logprobs=2))["choices"][0]["logprobs"]
    assert {len(value) for value in logprobs.values()} == {5}
    assert logprobs["text_offset"][0] == 0
    for token, value, tops in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert tops[token] == value == max(tops.values())


def test_prompt_logprobs_are_told_of_each_token_but_the_first() -> None:
    for asked, others in ((0, 0), (2, 1)):
        (choice,) = whole(completion(prompt=[5, 6, 7], max_tokens=1, prompt_logprobs=asked))["choices"]
        first, *rest = choice["prompt_logprobs"]
        assert first is None
        assert [next(iter(position)) for position in rest] == ["6", "7"]
        assert {len(position) for position in rest} == {1 + others}
        assert all({"logprob", "rank", "decoded_token"} == set(one) for position in rest for one in position.values())


@pytest.mark.parametrize(
    "body",
    [
        {"messages": "x"},
        {"messages": []},
        {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [5]},
        *(
            {"messages": [{"role": "user", "content": "x"}], **bad}
            for bad in (
                {"n": "many"},
                {"n": 0},
                {"n": 20_000},
                {"logprobs": True, "top_logprobs": 2**64 - 1},
                {"prompt_logprobs": 21},
                {"structured_outputs": {"choice": 20}},
                {"structured_outputs": {"json": "{"}},
                {"max_tokens": -1},
                {"max_tokens": 1.5},
                {"max_tokens": [1]},
                {"temperature": -0.1},
                {"temperature": {}},
                {"top_p": 0},
                {"top_k": -2},
                {"stop": [""]},
                {"stop": 5},
                {"stop_token_ids": ["a"]},
                {"stream": "perhaps"},
                {"stream": []},
                {"stream_options": {"include_usage": True}},
                {"stream": True, "stream_options": 5},
                {"top_logprobs": 2},
                {"top_logprobs": "x"},
                {"prompt_logprobs": "x"},
                {"prompt_logprobs": -2},
                {"prompt_logprobs": 1, "stream": True},
                {"prompt_logprobs": -1, "stream": True},
                {"presence_penalty": 3},
                {"repetition_penalty": 0},
                {"min_tokens": 10, "max_tokens": 5},
                {"tools": []},
                {"tools": 5},
                {"tools": [5]},
                {"tools": [{"type": "function"}]},
                {"tool_choice": "auto"},
                {"tools": TOOLS, "tool_choice": "sometimes"},
                {"tools": TOOLS, "tool_choice": {"function": {"name": "other"}}},
                {"tools": TOOLS, "tool_choice": {}},
                {"response_format": {"type": "json_schema"}},
                {"response_format": 5},
                {"model": 5},
                {"seed": "x"},
                {"max_tokens": 200_000},
                {"stream_interval": 0},
                {"chat_template": "{{ x }}"},
            )
        ),
    ],
)
def test_bad_fields_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        requests.read("/v1/chat/completions", body, LIMITS)
    assert refused.value.status == 400
    assert set(refused.value.body["error"]) == {"message", "type", "param", "code"}
