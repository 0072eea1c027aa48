"""What clients of vLLM and of OpenAI do that is a little beside the contract: it is served, or told the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.data_plane.conftest import PATIENT, Stack, chat
from tests.support.stack import Simulator, create_key, served_by, start_gateway, start_sim
from tests.support.wire import INVALID, error_of

ORIGIN = "https://chat.example.com"


@pytest.fixture(scope="module")
def open_stack(stack: Stack) -> Iterator[Stack]:
    """The same engine behind a gateway that knows browsers' origins, and leaves the model's length to the engine."""
    config = {
        "models": [
            served_by(stack.sim, adapters=[{"name": "sql", "upstream_model": "sim"}]),
            {"id": "down", "upstreams": ["http://127.0.0.1:1"]},
        ],
        "timeouts": PATIENT,
        "cors": {"origins": [ORIGIN, "http://localhost:3000"]},
    }
    with start_gateway(config) as gateway:
        yield Stack(stack.sim, gateway, create_key(gateway))


def get(stack: Stack, path: str, **headers: str) -> httpx.Response:
    return httpx.get(stack.gateway.url + path, headers={name.replace("_", "-"): v for name, v in headers.items()})


def test_health_as_vllm_has_it(stack: Stack) -> None:
    answer = get(stack, "/health")
    assert (answer.status_code, answer.content) == (200, b"")
    assert httpx.head(stack.gateway.url + "/health").status_code == 200
    posted = httpx.post(stack.gateway.url + "/health")
    error_of(posted, 405, INVALID, "method_not_allowed")


def test_health_is_not_good_before_the_gateway_is_ready(stack: Stack) -> None:
    config = {"models": [served_by(stack.sim)], "redis": {"url": "redis://127.0.0.1:1/0"}}
    with start_gateway(config, ready=False) as gateway:
        answer = httpx.get(gateway.url + "/health")
        assert (answer.status_code, answer.content) == (503, b"")


def test_models_tell_the_length_that_their_engine_states(open_stack: Stack) -> None:
    listed = get(open_stack, "/v1/models", authorization=f"Bearer {open_stack.key}").json()["data"]
    lengths = {model["id"]: model.get("max_model_len") for model in listed}
    assert lengths == {"sim": 32768, "llama3-8b": 32768, "sim:sql": 32768, "llama3-8b:sql": 32768, "down": None}
    one = get(open_stack, "/v1/models/llama3-8b", authorization=f"Bearer {open_stack.key}").json()
    assert one["max_model_len"] == 32768


def test_an_engine_that_hangs_does_not_hold_up_the_list_of_models(stack: Stack) -> None:
    with start_sim(model="sim") as engine:
        config = {"models": [served_by(engine)], "timeouts": {**PATIENT, "connect_s": 30.0}}
        with start_gateway(config) as gateway:
            key = create_key(gateway)
            engine.process.send_signal(19)  # SIGSTOP: it takes connections, and says nothing
            try:
                listed = httpx.get(
                    f"{gateway.base_url}/models", headers={"authorization": f"Bearer {key}"}, timeout=20
                ).json()["data"]
            finally:
                engine.process.send_signal(18)  # SIGCONT
            assert [model["id"] for model in listed] == ["sim", "llama3-8b"]
            assert "max_model_len" not in listed[0]


NO_TOOLS: list[dict[str, Any]] = [
    {"tools": []},
    {"tools": [], "tool_choice": "auto"},
    {"tools": [], "tool_choice": "none", "parallel_tool_calls": True},
    {"tools": [], "tool_choice": None},
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fields", NO_TOOLS)
def test_an_empty_list_of_tools_is_none(stack: Stack, sim: Simulator, fields: dict[str, Any], stream: bool) -> None:
    answer = stack.post(json=chat(max_tokens=2, stream=stream, **fields))
    assert answer.status_code == 200, answer.text
    assert "tool_calls" not in answer.text


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_tool_that_is_asked_for_has_to_be_there(stack: Stack, choice: object) -> None:
    answer = stack.post(json=chat(tools=[], tool_choice=choice))
    assert "tools" in error_of(answer, 400, INVALID, "invalid_value", "tool_choice")


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("/v1/responses", "POST /v1/chat/completions"),
        ("/v1/messages", "POST /v1/chat/completions"),
        ("/", "POST /v1/chat/completions"),
        ("/chat/completions", "POST /v1/chat/completions"),
        ("/v1/v1/chat/completions", "POST /v1/chat/completions"),
        ("/v1/chat/completions/", "POST /v1/chat/completions"),
        ("/api/v1/completions", "POST /v1/completions"),
        ("/v1/engines/sim/embeddings", "POST /v1/embeddings"),
        ("/models", "GET /v1/models"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_route_is_told_the_way(stack: Stack, method: str, path: str, way: str) -> None:
    message = error_of(httpx.request(method, stack.gateway.url + path), 404, INVALID, "unknown_url")
    assert f"{path} is not served here" in message
    assert message.endswith(f"{way}.")


def test_a_long_unknown_route_is_not_told_back_whole(stack: Stack) -> None:
    message = error_of(get(stack, "/v1/" + "x" * 5000), 404, INVALID, "unknown_url")
    assert len(message) < 400


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("asked", [-1, 21, 100])
def test_how_many_logprobs_there_are_is_the_engines_to_say(stack: Stack, path: str, asked: int) -> None:
    """The simulator refuses more than 20, as vLLM does without --max-logprobs; it is asked."""
    body = chat(max_tokens=1, logprobs=True, top_logprobs=asked)
    if path == "/v1/completions":
        body = {"model": "sim", "prompt": "x", "max_tokens": 1, "logprobs": asked}
    before = stack.sim.stats()
    answer = stack.post(path, json=body)
    after = stack.sim.stats()
    reached = after["requests_total"] + after["refused_total"] - before["requests_total"] - before["refused_total"]
    assert reached == 1, answer.text


WHOLE: dict[str, Any] = {
    "max_tokens": 3.0,
    "n": 1.0,
    "seed": 7.0,
    "top_logprobs": 2.0,
    "max_completion_tokens": 3.0,
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("field", WHOLE)
def test_a_whole_number_with_a_point_is_one(stack: Stack, field: str, stream: bool) -> None:
    fields = {"max_tokens": 3, "logprobs": True, "stream": stream, field: WHOLE[field]}
    answer = stack.post(json=chat(**fields))
    assert answer.status_code == 200, answer.text
    if not stream:
        assert answer.json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "x", "max_tokens": 3.0, "best_of": 1.0, "logprobs": 1.0}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 3e0}),
    ],
)
def test_whole_numbers_of_completions(stack: Stack, path: str, body: dict[str, Any]) -> None:
    answer = stack.post(path, json={"model": "sim", **body})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("wrong", ["3.5", '"3"', "1e400", "true", "[3.0]"])
def test_a_number_that_is_not_whole_stays_wrong(stack: Stack, wrong: str) -> None:
    body = json.dumps(chat())[:-1] + f', "max_tokens": {wrong}' + "}"
    answer = stack.post(content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == INVALID


def preflight(stack: Stack, origin: str, path: str = "/v1/chat/completions") -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    return httpx.options(stack.gateway.url + path, headers=headers)


def test_a_known_origin_is_served(open_stack: Stack) -> None:
    asked = preflight(open_stack, ORIGIN)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in asked.headers["access-control-allow-headers"]
    for stream in (True, False):
        answer = open_stack.post(json=chat(max_tokens=2, stream=stream), headers={"origin": ORIGIN})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert answer.headers["vary"] == "Origin"


def test_a_known_origin_can_read_errors(open_stack: Stack) -> None:
    for answer in (
        open_stack.post(key="", json=chat(), headers={"origin": ORIGIN}),
        open_stack.post(json=chat(model="nope"), headers={"origin": ORIGIN}),
        get(open_stack, "/v1/nope", origin=ORIGIN),
    ):
        assert answer.status_code in (401, 404)
        assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", ORIGIN + ".evil.com", ORIGIN + ":8443"])
def test_another_origin_is_not(open_stack: Stack, origin: str) -> None:
    assert "access-control-allow-origin" not in preflight(open_stack, origin).headers
    answer = open_stack.post(json=chat(max_tokens=1), headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_without_the_setting_no_origin_is_known(stack: Stack) -> None:
    assert preflight(stack, ORIGIN).status_code == 405
    answer = stack.post(json=chat(max_tokens=1), headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
