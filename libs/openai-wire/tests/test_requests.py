from __future__ import annotations

import json
from typing import Any

import pytest
from openai_wire.requests import BadField, ChatRequest, CompletionRequest, EmbeddingRequest, read, typed

GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def refused(body: bytes | dict[str, Any], kind: Any = ChatRequest) -> BadField:
    with pytest.raises(BadField) as caught:
        typed(kind, read(body if isinstance(body, bytes) else json.dumps(body).encode()))
    return caught.value


def test_unknown_fields_are_left_alone() -> None:
    assert typed(ChatRequest, read(json.dumps(GOOD | {"top_k": 3, "guided_regex": "a+"}).encode())).model == "m"


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("model", 3, "model"),
        ("model", "", "model"),
        ("messages", "hi", "messages"),
        ("messages", [], "messages"),
        ("messages", [3], "messages[0]"),
        ("messages", [{"role": "user", "content": "a"}, {"role": 3}], "messages[1].role"),
        ("messages", [{"role": "user", "content": 3}], "messages[0].content"),
        ("messages", [{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ("messages", [{"content": "x"}], "messages[0].role"),
        ("stream", "yes", "stream"),
        ("stream_options", True, "stream_options"),
        ("stream_options", {"include_usage": 1}, "stream_options.include_usage"),
        ("max_tokens", "ten", "max_tokens"),
        ("max_tokens", 0, "max_tokens"),
        ("max_tokens", -1, "max_tokens"),
        ("max_tokens", 1.5, "max_tokens"),
        ("max_tokens", 10**30, "max_tokens"),
        ("max_completion_tokens", 0, "max_completion_tokens"),
        ("n", 0, "n"),
        ("n", 129, "n"),
        ("n", "1", "n"),
        ("temperature", "hot", "temperature"),
        ("temperature", 2.1, "temperature"),
        ("top_p", 1.1, "top_p"),
        ("presence_penalty", 3, "presence_penalty"),
        ("frequency_penalty", -3, "frequency_penalty"),
        ("stop", 3, "stop"),
        ("stop", [3], "stop[0]"),
        ("seed", 0.5, "seed"),
        ("user", 1, "user"),
        ("logprobs", 1, "logprobs"),
        ("top_logprobs", -2, "top_logprobs"),
        ("tools", {}, "tools"),
        ("tool_choice", 1, "tool_choice"),
        ("response_format", "json", "response_format"),
        ("logit_bias", [], "logit_bias"),
        ("return_token_ids", "x", "return_token_ids"),
    ],
)
def test_a_bad_field_is_named(field: str, value: Any, param: str) -> None:
    bad = refused(GOOD | {field: value})
    assert bad.param == param
    assert param in bad.message
    assert bad.code in ("invalid_type", "invalid_value", "missing_required_parameter")


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(field: str) -> None:
    bad = refused({key: value for key, value in GOOD.items() if key != field})
    assert (bad.param, bad.code) == (field, "missing_required_parameter")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b"\xff\xfe",
        b'{"model": "a" "b"}',
        b'{"model":"m","messages":[{"role":"user"}],"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"model":"m","messages":[{"role":"user"}],"x":NaN}',
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    assert refused(body).code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null"])
def test_json_that_is_no_object(body: bytes) -> None:
    assert refused(body).code == "invalid_type"


@pytest.mark.parametrize("prompt", ["text", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_every_form_of_prompt(prompt: Any) -> None:
    request = typed(CompletionRequest, read(json.dumps({"model": "m", "prompt": prompt}).encode()))
    assert request.prompt_estimate() >= 2
    assert request.choices == (2 if prompt in (["a", "b"], [[1], [2, 3]]) else 1)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "description": "word " * 600}}]},
        {"documents": [{"text": "word " * 600}]},
        *(
            {"messages": [{"role": "assistant", "content": None, **said}]}
            for said in (
                {"content": "word " * 600},
                {"content": [{"type": "text", "text": "word " * 600}]},
                {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "word " * 600}}]},
                {"reasoning": "word " * 600},
                {"reasoning_content": "word " * 600},
            )
        ),
    ],
)
def test_an_estimate_has_all_that_becomes_prompt(more: dict[str, Any]) -> None:
    assert 600 <= typed(ChatRequest, read(json.dumps(GOOD | more).encode())).prompt_estimate() <= 1200


def test_a_bad_prompt() -> None:
    assert refused({"model": "m", "prompt": {"a": 1}}, CompletionRequest).param == "prompt"
    assert refused({"model": "m", "prompt": [-1]}, CompletionRequest).param == "prompt[0]"
    assert refused({"model": "m", "input": 3}, EmbeddingRequest).param == "input"


@pytest.mark.parametrize("name", ["max_tokens", "n", "seed"])
def test_a_whole_number_may_be_written_with_a_point(name: str) -> None:
    fields = read(json.dumps(GOOD | {name: 3.0}).encode())
    assert getattr(typed(ChatRequest, fields), name) == 3
    assert type(fields[name]) is int, "the engine gets it so, too"


def test_the_newer_name_of_max_tokens_wins() -> None:
    request = typed(ChatRequest, read(json.dumps(GOOD | {"max_tokens": 5, "max_completion_tokens": 7}).encode()))
    assert request.answer_limit == 7
