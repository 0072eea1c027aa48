"""What each path of the API means: what is parsed, reserved, refused, asked of engines and shown to clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from cloudach_gateway.api.endpoint import Asked
from cloudach_gateway.api.endpoints import ENDPOINTS
from cloudach_gateway.catalog.served import ServedModel
from cloudach_gateway.proxy.stream.client_view import UsageForm
from cloudach_gateway.settings import Model, Settings
from openai_wire.requests import BadField

SETTINGS = Settings(models=[Model(id="m", upstreams=("http://engine",), max_model_len=1000)])
MODEL = ServedModel.from_settings(SETTINGS.models[0])
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "?"}]},
    "/v1/completions": {"model": "m", "prompt": "?"},
    "/v1/embeddings": {"model": "m", "input": "?"},
}
CHAT, COMPLETIONS, EMBEDDINGS = BODIES
GENERATED = [CHAT, COMPLETIONS]


def asked(path: str, **fields: Any) -> Asked:
    [endpoint] = (endpoint for endpoint in ENDPOINTS if endpoint.path == path)
    return endpoint.asked(orjson.dumps(BODIES[path] | fields))


def view(path: str, **fields: Any) -> Any:
    answers = asked(path, **fields).to_engine(MODEL).answers
    assert answers is not None
    return answers.view


def refused(path: str, model: ServedModel = MODEL, **fields: Any) -> BadField:
    with pytest.raises(BadField) as caught:
        asked(path, **fields).check(model, SETTINGS)
    return caught.value


def test_every_path_is_in_the_table_once() -> None:
    assert [endpoint.path for endpoint in ENDPOINTS] == list(BODIES)
    assert [endpoint.route for endpoint in ENDPOINTS] == ["chat/completions", "completions", "embeddings"]


@pytest.mark.parametrize("path", BODIES)
def test_the_engine_is_asked_at_the_same_path_for_its_own_name_of_the_model(path: str) -> None:
    to_engine = asked(path, user="u").to_engine(replace(MODEL, upstream_model="own"))
    assert to_engine.route.path == path
    sent = orjson.loads(to_engine.body)
    assert (sent["model"], sent["user"]) == ("own", "u")
    assert sent == to_engine.fields


@pytest.mark.parametrize("path", BODIES)
def test_a_model_that_was_woken_under_another_name_is_asked_by_that(path: str) -> None:
    one = asked(path, stream_options=None)
    first = orjson.loads(one.to_engine(MODEL).body)
    again = orjson.loads(one.to_engine(replace(MODEL, upstream_model="woken")).body)
    assert again == first | {"model": "woken"}


@pytest.mark.parametrize("path", BODIES)
def test_a_client_sees_the_name_that_it_used(path: str) -> None:
    assert orjson.loads(asked(path, model="alias").for_client({"model": "own", "choices": []}))["model"] == "alias"


def test_embeddings_cost_their_prompt_and_come_in_one_piece() -> None:
    one = asked(EMBEDDINGS, input=["word " * 30] * 3)
    assert one.tokens(MODEL, default_answer=500) == one.prompt_tokens > 100
    assert one.bounds(size=1000, max_model_len=1000).answer == 0
    assert one.to_engine(MODEL).answers is None
    assert not one.stream


@pytest.mark.parametrize(
    ("path", "fields", "answers"),
    [
        (CHAT, {}, 50),
        (CHAT, {"max_tokens": 7, "n": 3}, 21),
        (CHAT, {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        (COMPLETIONS, {"max_tokens": 7, "prompt": ["a", "b"], "n": 2}, 28),
        (COMPLETIONS, {"max_tokens": 0, "echo": True}, 0),
    ],
)
def test_the_longest_answers_are_reserved(path: str, fields: dict[str, Any], answers: int) -> None:
    one = asked(path, **fields)
    assert one.tokens(MODEL, default_answer=50) == one.prompt_tokens + answers


@pytest.mark.parametrize("path", GENERATED)
def test_no_more_is_reserved_than_the_context_has(path: str) -> None:
    assert asked(path).tokens(MODEL, default_answer=5000) == 1000


@pytest.mark.parametrize(
    ("path", "fields", "prompt", "answer"),
    [
        (CHAT, {"max_tokens": 7, "n": 2}, 16_584, 14),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 100_000, 100_000),
        (COMPLETIONS, {"max_tokens": 7, "best_of": 3, "prompt": ["a", "b"]}, 16_584, 42),
        (COMPLETIONS, {"max_tokens": 0}, 16_584, 1),
        (EMBEDDINGS, {}, 16_584, 0),
    ],
)
def test_no_engine_is_believed_beyond_these_bounds(path: str, fields: dict[str, Any], prompt: int, answer: int) -> None:
    assert asked(path, **fields).bounds(size=100, max_model_len=100_000) == (prompt, answer)


@pytest.mark.parametrize(
    ("options", "form"),
    [
        (None, UsageForm.LAST_CHOICE),
        ({}, UsageForm.NONE),
        ({"include_usage": False, "continuous_usage_stats": True}, UsageForm.NONE),
        ({"include_usage": True}, UsageForm.EXTRA_CHUNK),
        ({"include_usage": True, "continuous_usage_stats": True}, UsageForm.EVERY_CHUNK),
    ],
)
@pytest.mark.parametrize("path", GENERATED)
def test_where_usage_is_shown(path: str, options: Any, form: UsageForm) -> None:
    assert view(path, stream=True, stream_options=options).usage is form


def test_what_a_client_sees_of_its_answers() -> None:
    chat = view(CHAT, n=2, return_token_ids=True)
    assert (chat.chat, chat.choices, chat.answers_per_prompt, chat.token_ids) == (True, 2, 2, True)
    completion = view(COMPLETIONS, n=2, prompt=["a", "b", "c"])
    assert (completion.chat, completion.choices, completion.answers_per_prompt) == (False, 6, 2)


@pytest.mark.parametrize(
    ("choice", "forced"),
    [("auto", False), ("none", False), ("required", True), ({"type": "function", "function": {"name": "f"}}, True)],
)
def test_a_tool_choice_that_forces_a_call(choice: Any, forced: bool) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert view(CHAT, tools=[tool], tool_choice=choice).forced_call is forced


def test_an_empty_list_of_tools_does_not_reach_the_engine() -> None:
    assert "tools" not in asked(CHAT, tools=[], tool_choice="auto").fields
    with pytest.raises(BadField):
        asked(CHAT, tools=[], tool_choice="required")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_longer_than_the_context_is_refused_by_the_name_it_has(name: str) -> None:
    bad = refused(CHAT, **{name: 1001})
    assert (bad.param, bad.code) == (name, "context_length_exceeded")


@pytest.mark.parametrize("path", GENERATED)
def test_stream_options_need_a_stream(path: str) -> None:
    assert refused(path, stream_options={"include_usage": True}).param == "stream_options"


@pytest.mark.parametrize("path", BODIES)
def test_every_path_refuses_fields_that_its_model_forbids(path: str) -> None:
    strict = replace(MODEL, rules=replace(MODEL.rules, pass_unknown=False))
    assert refused(path, strict, unheard_of=1).param == "unheard_of"


@pytest.mark.parametrize("path", BODIES)
def test_what_cannot_be_written_again_is_refused(path: str) -> None:
    one = asked(path)
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]
    one.fields["deep"] = nested
    with pytest.raises(BadField) as caught:
        one.to_engine(MODEL)
    assert caught.value.code == "invalid_json"
