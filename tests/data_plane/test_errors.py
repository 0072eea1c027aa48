"""Each wrong request gets the contract's error, with the right status, and the gateway stays up."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import Any

import httpx
import openai
import pytest

from tests.data_plane.conftest import Stack, chat
from tests.support.processes import BIN
from tests.support.stack import Simulator, create_key
from tests.support.waiting import until
from tests.support.wire import INVALID, error_of


def manage(stack: Stack, action: str, key: str, *options: str) -> None:
    command = [BIN / "cloudach", "keys", action, key, "--config", stack.gateway.config_file, *options]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_no_key(stack: Stack) -> None:
    error_of(stack.post(key="", json=chat()), 401, INVALID, "invalid_api_key")


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "abc", "Bearer a b"])
def test_a_malformed_header(stack: Stack, header: str) -> None:
    error_of(stack.post(key="", json=chat(), headers={"authorization": header}), 401, INVALID, "invalid_api_key")


@pytest.mark.parametrize("key", ["x", "sk-cld-zzz", "sk-proj-abc", "sk-cld-tests-aaaaaaaaaa-" + "a" * 40, "é" * 10])
def test_a_malformed_or_unknown_key(stack: Stack, key: str) -> None:
    headers = {"authorization": b"Bearer " + key.encode()}
    answer = stack.post(key="", json=chat(), headers=headers)
    message = error_of(answer, 401, INVALID, "invalid_api_key")
    assert key not in message, "a key is a secret, even a wrong one"


def test_a_wrong_key_hears_nothing_about_its_request(stack: Stack) -> None:
    wrong = "sk-cld-tests-aaaaaaaaaa-" + "a" * 40
    error_of(stack.post(key=wrong, json=chat(model="nope")), 401, INVALID, "invalid_api_key")
    error_of(stack.post(key=wrong, content=b"{"), 401, INVALID, "invalid_api_key")


def test_deleted_disabled_and_expired_keys(stack: Stack) -> None:
    key = create_key(stack.gateway)
    assert stack.post(key=key, json=chat(max_tokens=1)).status_code == 200
    manage(stack, "disable", key)
    error_of(stack.post(key=key, json=chat()), 403, "permission_error", "key_disabled")
    manage(stack, "enable", key)
    assert stack.post(key=key, json=chat(max_tokens=1)).status_code == 200
    manage(stack, "expire", key, "--at", "now")
    assert "expired" in error_of(stack.post(key=key, json=chat()), 401, INVALID, "invalid_api_key")
    manage(stack, "delete", key)
    error_of(stack.post(key=key, json=chat()), 401, INVALID, "invalid_api_key")


def test_a_rotated_key_works_beside_the_new_one(stack: Stack) -> None:
    old = create_key(stack.gateway)
    command = [BIN / "cloudach", "keys", "rotate", old, "--grace", "1h", "--json"]
    done = subprocess.run(
        [*command, "--config", stack.gateway.config_file], check=True, capture_output=True, text=True, timeout=60
    )
    new = httpx.Response(200, text=done.stdout).json()["key"]
    assert new != old
    for key in (old, new):
        assert stack.post(key=key, json=chat(max_tokens=1)).status_code == 200


def test_a_key_without_that_model(stack: Stack) -> None:
    key = create_key(stack.gateway, models="down")
    error_of(stack.post(key=key, json=chat()), 403, "permission_error", "model_not_allowed", "model")
    listed = httpx.get(f"{stack.gateway.base_url}/models", headers={"authorization": f"Bearer {key}"}).json()
    assert [model["id"] for model in listed["data"]] == ["down"]


def test_an_alias_allows_its_model(stack: Stack) -> None:
    key = create_key(stack.gateway, models="llama3-8b")
    for name in ("sim", "llama3-8b"):
        assert stack.post(key=key, json=chat(model=name, max_tokens=1)).status_code == 200


def test_an_unknown_model(stack: Stack) -> None:
    error_of(stack.post(json=chat(model="gpt-9")), 404, INVALID, "model_not_found", "model")
    answer = httpx.get(f"{stack.gateway.base_url}/models/gpt-9", headers={"authorization": f"Bearer {stack.key}"})
    error_of(answer, 404, INVALID, "model_not_found", "model")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe\x00", b'{"model": "sim", "messages": [], "x": NaN}', b"[" * 10_000]
)
def test_invalid_json(stack: Stack, body: bytes) -> None:
    answer = stack.post(content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == INVALID


def test_json_nested_ten_thousand_deep(stack: Stack) -> None:
    nested = b'{"model":"sim","messages":[{"role":"user","content":"x"}],"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    answer = stack.post(content=nested, headers={"content-type": "application/json"})
    error_of(answer, 400, INVALID, "invalid_json")
    stack.still_serves()


def test_a_fifty_megabyte_body(stack: Stack) -> None:
    body = b'{"model":"sim","x":"' + b"x" * 50_000_000 + b'"}'
    error_of(stack.post(content=body, headers={"content-type": "application/json"}), 413, INVALID, "request_too_large")
    pieces = (body[i : i + 1_000_000] for i in range(0, len(body), 1_000_000))  # chunked: no length is declared
    error_of(
        stack.post(content=pieces, headers={"content-type": "application/json"}), 413, INVALID, "request_too_large"
    )
    stack.still_serves()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_wrong_content_type(stack: Stack, kind: str) -> None:
    answer = stack.post(content=b'{"model":"sim"}', headers={"content-type": kind})
    error_of(answer, 415, INVALID, "unsupported_media_type")


WRONG_TYPES = {
    "model": 3,
    "messages": "hi",
    "stream": "yes",
    "stream_options": 1,
    "max_tokens": "ten",
    "max_completion_tokens": 1.5,
    "n": "two",
    "temperature": "hot",
    "top_p": [],
    "presence_penalty": "x",
    "frequency_penalty": {},
    "stop": 1,
    "seed": "s",
    "user": 1,
    "logprobs": "x",
    "top_logprobs": "x",
    "logit_bias": [],
    "tools": "x",
    "tool_choice": 1,
    "response_format": "json",
}


@pytest.mark.parametrize("field", WRONG_TYPES)
def test_a_wrong_type_in_every_field(stack: Stack, sim: Simulator, field: str) -> None:
    answer = stack.post(json=chat() | {field: WRONG_TYPES[field]})
    assert field in error_of(answer, 400, INVALID, "invalid_type", field)
    assert sim.stats()["requests_total"] == 0, "it never reached the engine"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("n", 0, "invalid_value"),
        ("n", 1000, "invalid_value"),
        ("max_tokens", 0, "invalid_value"),
        ("max_tokens", -5, "invalid_value"),
        ("max_tokens", 10**12, "invalid_value"),
        ("max_tokens", 100_000, "context_length_exceeded"),
        ("max_completion_tokens", 100_000, "context_length_exceeded"),
        ("temperature", 9, "invalid_value"),
    ],
)
def test_out_of_range(stack: Stack, field: str, value: Any, code: str) -> None:
    error_of(stack.post(json=chat(**{field: value})), 400, INVALID, code, field)


def test_the_engines_own_refusal_passes_in_openais_shape(stack: Stack) -> None:
    answer = stack.post(json=chat("word " * 40_000, max_tokens=5))
    message = error_of(answer, 400, INVALID, "context_length_exceeded", answer.json()["error"]["param"])
    assert "context length" in message


@pytest.mark.parametrize("path", ["/v1/nope", "/", "/v1", "/docs", "/openapi.json", "/v1/chat/completions/"])
def test_an_unknown_route(stack: Stack, path: str) -> None:
    error_of(httpx.get(stack.gateway.url + path), 404, INVALID, "unknown_url")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/completions"), ("DELETE", "/v1/models"), ("PUT", "/v1/completions")]
)
def test_a_wrong_method(stack: Stack, method: str, path: str) -> None:
    answer = httpx.request(method, stack.gateway.url + path)
    error_of(answer, 405, INVALID, "method_not_allowed")
    assert answer.headers["allow"]


def test_what_is_no_http(stack: Stack) -> None:
    url = httpx.URL(stack.gateway.url)
    with socket.create_connection((url.host, url.port or 80)) as client:
        client.settimeout(30)
        client.sendall(b"hello there\r\n\r\n")
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: req_" in head
    assert json.loads(body)["error"]["code"] == "invalid_http"


def test_an_engine_that_is_down(stack: Stack) -> None:
    for stream in (False, True):
        error_of(stack.post(json=chat(model="down", stream=stream)), 502, "server_error", "upstream_error")


BEFORE_THE_FIRST_BYTE = [
    ("hang", 504, "timeout"),
    ("refuse", 502, "upstream_error"),
    ("abort@0", 502, "upstream_error"),
    ("end@0", 502, "upstream_error"),
    ("error@0", 502, "upstream_error"),
    ("http:500", 502, "upstream_error"),
    ("http:500:json", 502, "upstream_error"),
    ("http:503", 503, "server_is_overloaded"),
    ("http:429", 503, "server_is_overloaded"),
    ("http:401", 502, "upstream_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "status", "code"), BEFORE_THE_FIRST_BYTE)
def test_an_engine_that_fails_before_the_first_byte(
    stack: Stack, impatient: Stack, sim: Simulator, fault: str, status: int, code: str, stream: bool
) -> None:
    sim.arm(fault, times=None)
    answer = (impatient if fault == "hang" else stack).post(json=chat(stream=stream))
    message = error_of(answer, status, "server_error", code)
    assert "127.0.0.1" not in message, "internals stay inside"
    assert ("retry-after" in answer.headers) == (status == 503)
    sim.reset()
    stack.still_serves()


@pytest.mark.parametrize("fault", ["abort@3", "close@3", "end@3", "error@3", "error@3:nodone", "stall@3"])
def test_an_engine_that_fails_in_mid_stream(stack: Stack, impatient: Stack, sim: Simulator, fault: str) -> None:
    """With failover off: tests/data_plane/test_failover.py has what happens otherwise."""
    sim.arm(fault)
    asked = impatient if "stall" in fault else stack
    chunks = []
    with (
        openai.OpenAI(
            base_url=asked.gateway.base_url,
            api_key=asked.key,
            max_retries=0,
            default_headers={"x-cloudach-failover": "off"},
        ) as client,
        pytest.raises(openai.APIError) as caught,
    ):
        for chunk in client.chat.completions.create(**chat(stream=True, max_tokens=20)):  # type: ignore[call-overload]
            chunks.append(chunk)
    assert caught.value.code == "upstream_error"
    assert len(chunks) == 4, "the role and three tokens arrived before it"
    assert asked.logged(outcome="failed", completion_tokens=3)["cause"], "the log says why"
    asked.still_serves()


@pytest.mark.parametrize("fault", ["abort@3", "end@3", "error@3", "stall@3"])
def test_an_engine_that_fails_in_the_middle_of_a_whole_answer(
    stack: Stack, impatient: Stack, sim: Simulator, fault: str
) -> None:
    """With failover off: tests/data_plane/test_failover.py has what happens otherwise."""
    sim.arm(fault)
    asked = impatient if "stall" in fault else stack
    answer = asked.post(json=chat(max_tokens=20), headers={"x-cloudach-failover": "off"})
    error_of(answer, 502, "server_error", "upstream_error")
    asked.still_serves()


def test_an_unknown_wish_for_failover(stack: Stack) -> None:
    answer = stack.post(json=chat(), headers={"x-cloudach-failover": "perhaps"})
    error_of(answer, 400, INVALID, "invalid_value", "x-cloudach-failover")


def test_a_transient_failure_is_retried_before_the_first_byte(stack: Stack, sim: Simulator) -> None:
    for fault in ("refuse", "http:503", "abort@0", "http:500"):
        sim.arm(fault, times=1)
        answer = stack.post(json=chat(max_tokens=3))
        assert answer.status_code == 200, (fault, answer.text)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def test_an_engine_that_hangs_over_a_whole_answer(impatient: Stack, sim: Simulator) -> None:
    """Requests that are not run as streams have the total time."""
    sim.arm("hang")
    error_of(impatient.post(json=chat(prompt_logprobs=1)), 504, "server_error", "timeout")
    until(lambda: sim.stats()["running"] == 0)


def test_a_model_that_serves_no_embeddings(stack: Stack) -> None:
    answer = stack.post("/v1/embeddings", json={"model": "sim", "input": "x"})
    error_of(answer, 400, INVALID, "unsupported_model", "model")


@pytest.mark.parametrize("extra", [b'{"x":' + b"[" * 600 + b"]" * 600, b'{"x":1e999', b'{"x":"\xff"'])
def test_what_could_not_be_passed_on_is_refused_before_it_costs_anything(stack: Stack, extra: bytes) -> None:
    key = create_key(stack.gateway, requests_per_minute=10)
    body = extra + b',"model":"sim","messages":[{"role":"user","content":"x"}]}'
    answer = stack.post(key=key, content=body, headers={"content-type": "application/json"})
    error_of(answer, 400, INVALID, "invalid_json")
    assert answer.headers["x-ratelimit-remaining-requests"] == "10"


def test_a_refusal_that_comes_in_many_pieces(stack: Stack, sim: Simulator) -> None:
    """And neither the refusal nor the prompt that an engine quotes in it gets into the log."""
    answer = stack.post(json=chat(top_k="confidential " * 20_000))
    if answer.status_code == 200:
        pytest.fail("the engine took it: choose another wrong field")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == INVALID
    stack.logged(request_id=answer.headers["x-request-id"])
    assert "confidential" not in stack.gateway.output


def test_health_needs_no_key(stack: Stack) -> None:
    for path in ("/healthz", "/readyz"):
        assert httpx.get(stack.gateway.url + path).json() == {"status": "ok"}
