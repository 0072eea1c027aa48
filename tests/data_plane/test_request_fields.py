"""Fields that are not a caller's, and media by URL, get a 400, and no engine sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai_wire.fields import FIELDS, Who

from tests.data_plane.conftest import PATIENT, Stack, chat
from tests.support.stack import create_key, served_by, start_gateway, start_sim
from tests.support.wire import INVALID, error_of

REFUSED = sorted(name for name, field in FIELDS.items() if field.who is not Who.CLIENT)
PATHS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with start_sim(rate=200, model="sim") as sim:
        strict = {
            **served_by(sim),
            "id": "strict",
            "aliases": [],
            "upstream_model": "sim",
            "unknown_fields": "refuse",
            "allowed_fields": ["priority"],
            "allowed_media_domains": ["images.example.com"],
            "adapters": [{"name": "sql", "upstream_model": "sim"}],
        }
        with start_gateway({"models": [served_by(sim), strict], "timeouts": PATIENT}) as gateway:
            yield Stack(sim, gateway, create_key(gateway))


def asked_of_the_engine(stack: Stack) -> int:
    stats = stack.sim.stats()
    return int(stats["requests_total"] + stats["refused_total"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_fields_that_are_not_the_callers(stack: Stack, path: str, stream: bool) -> None:
    before = asked_of_the_engine(stack)
    for name in REFUSED:
        answer = stack.post(path, json={"model": "sim", **PATHS[path], "stream": stream, name: 1})
        assert f"'{name}'" in error_of(answer, 400, INVALID, "unsupported_parameter", name)
    assert asked_of_the_engine(stack) == before


def test_fields_that_a_model_lets_through(stack: Stack) -> None:
    assert stack.post(json=chat(model="strict", max_tokens=1, priority=0)).status_code == 200
    assert stack.post(json=chat(model="strict:sql", max_tokens=1, priority=0)).status_code == 200
    answer = stack.post(json=chat(model="strict", request_id="x"))
    error_of(answer, 400, INVALID, "unsupported_parameter", "request_id")


def test_unknown_fields(stack: Stack) -> None:
    assert stack.post(json=chat(brand_new=1, max_tokens=1)).status_code == 200
    for model in ("strict", "strict:sql"):
        answer = stack.post(json=chat(model=model, brand_new=1))
        error_of(answer, 400, INVALID, "unknown_parameter", "brand_new")


def look(url: str, **fields: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "sim", "messages": [{"role": "user", "content": parts}], "max_tokens": 1, **fields}


@pytest.mark.parametrize("stream", [False, True])
def test_media_by_url(stack: Stack, stream: bool) -> None:
    before = asked_of_the_engine(stack)
    for url in ("http://169.254.169.254/latest/meta-data/", "https://images.example.com/a.png", "file:///etc/passwd"):
        answer = stack.post(json=look(url, stream=stream))
        error_of(answer, 400, INVALID, "invalid_value", "messages[0].content[1].image_url.url")
    assert asked_of_the_engine(stack) == before


def test_media_of_a_domain_that_is_allowed_come_to_the_engine(stack: Stack) -> None:
    before = asked_of_the_engine(stack)
    stack.post(json=look("https://images.example.com/a.png", model="strict"))
    stack.post(json=look("data:image/png;base64,AAAA"))
    assert asked_of_the_engine(stack) == before + 2
    answer = stack.post(json=look("https://images.example.com@169.254.169.254/a.png", model="strict"))
    assert "images.example.com" in error_of(
        answer, 400, INVALID, "invalid_value", "messages[0].content[1].image_url.url"
    )


@pytest.mark.parametrize("name", ["stop", "bad_words"])
def test_words_that_are_compared_with_every_token(stack: Stack, name: str) -> None:
    before = asked_of_the_engine(stack)
    answer = stack.post(json=chat(max_tokens=1, **{name: [f"word {n}" for n in range(257)]}))
    error_of(answer, 400, INVALID, "invalid_value", name)
    assert asked_of_the_engine(stack) == before
    assert stack.post(json=chat(max_tokens=1, **{name: [f"word {n}" for n in range(256)]})).status_code == 200


def test_embeddings_take_no_messages(stack: Stack) -> None:
    body = {**look("http://169.254.169.254/"), "input": "x"}
    error_of(stack.post("/v1/embeddings", json=body), 400, INVALID, "invalid_type", "messages")
