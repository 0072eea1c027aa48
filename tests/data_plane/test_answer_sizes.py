"""How large an answer in one piece may get, and a single event: what an engine sends beyond is not kept in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.data_plane.conftest import PATIENT
from tests.data_plane.streamed import Streamed
from tests.support.raw_engine import RawEngine
from tests.support.stack import Gateway, create_key, start_gateway
from tests.support.wire import error_of, events, response

LARGEST = 100_000


@dataclass
class Wordy:
    engine: RawEngine
    gateway: Gateway
    key: str

    def ask(self, path: str = "/v1/chat/completions", *, model: str = "vllm", **fields: Any) -> httpx.Response:
        prompt = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"input": "hi"}
        headers = {"authorization": f"Bearer {self.key}"}
        body = {"model": model, **prompt, **fields}
        return httpx.post(self.gateway.url + path, json=body, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def wordy() -> Iterator[Wordy]:
    with RawEngine() as engine:
        models = [{"id": name, "dialect": name, "upstreams": [engine.url]} for name in ("vllm", "openai")]
        config = {"models": models, "timeouts": PATIENT, "max_answer_bytes": LARGEST}
        with start_gateway(config) as gateway:
            yield Wordy(engine, gateway, create_key(gateway))


def whole(size: int) -> bytes:
    message = {"role": "assistant", "content": "x" * size}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return response(json.dumps({"id": "c", "object": "chat.completion", "model": "own", "choices": [choice]}))


def stream(*choices: dict[str, Any]) -> bytes:
    """An event for each choice, as vLLM writes it."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "own"}
    said = [json.dumps({**head, "choices": [choice]}, separators=(",", ":")) for choice in choices]
    return events(*said, "[DONE]")


def said(text: str, index: int = 0, **more: Any) -> dict[str, Any]:
    reasons = {"logprobs": None, "finish_reason": None}
    return {"index": index, "delta": {"content": text}, **reasons, **more, "token_ids": [7]}


def assert_too_large(wordy: Wordy, answer: httpx.Response) -> None:
    assert str(LARGEST) in error_of(answer, 502, "server_error", "upstream_error")
    assert answer.headers["x-should-retry"] == "false", "another attempt would generate it all once more"
    assert len(wordy.engine.requests) == 1


def test_a_whole_answer(wordy: Wordy) -> None:
    wordy.engine.says(whole(LARGEST - 1000))
    assert wordy.ask(prompt_logprobs=0).status_code == 200
    wordy.engine.says(whole(LARGEST))
    assert_too_large(wordy, wordy.ask(prompt_logprobs=0))
    wordy.engine.says(whole(20_000_000))
    assert_too_large(wordy, wordy.ask(prompt_logprobs=0))


def test_an_answer_in_one_piece_where_a_stream_was_asked_for(wordy: Wordy) -> None:
    wordy.engine.says(whole(LARGEST))
    assert_too_large(wordy, wordy.ask())


def test_embeddings(wordy: Wordy) -> None:
    vector = {"object": "embedding", "index": 0, "embedding": [0.5] * LARGEST}
    wordy.engine.says(response(json.dumps({"object": "list", "data": [vector], "model": "own"})))
    assert_too_large(wordy, wordy.ask("/v1/embeddings"))


ENTRY = {"token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []}


@pytest.mark.parametrize(
    ("model", "fields", "parts"),
    [
        ("vllm", {}, [said("word ")]),  # in the form that is gathered the shortest way
        ("vllm", {}, [said("word " * 100)]),
        ("vllm", {}, [said("word " * 10, mood=None), said("x" * 800)]),
        ("vllm", {}, [said("")]),  # tokens without any text
        ("openai", {}, [said("word ")]),
        ("vllm", {"n": 2}, [said("word "), said("word ", 1)]),
        ("vllm", {"logprobs": True}, [said("", logprobs={"content": [ENTRY]})]),
        ("vllm", {"return_token_ids": True}, [said("")]),
        ("vllm", {}, [said("word ", mood="fine")]),
    ],
)
def test_an_answer_that_is_put_together(
    wordy: Wordy, model: str, fields: dict[str, Any], parts: list[dict[str, Any]]
) -> None:
    wordy.engine.says(stream(*parts * 100, said(".", finish_reason="stop")))
    assert wordy.ask(model=model, **fields).status_code == 200
    wordy.engine.says(stream(*parts * 30_000))
    assert_too_large(wordy, wordy.ask(model=model, **fields))


def test_choices_that_nobody_asked_for(wordy: Wordy) -> None:
    wordy.engine.says(stream(said("word "), said("word ", 1)))
    error_of(wordy.ask(), 502, "server_error", "upstream_error")


def test_one_event_of_a_stream(wordy: Wordy) -> None:
    wordy.engine.says(stream(said("word "), said("x" * (LARGEST - 1000)), said(".", finish_reason="stop")))
    assert Streamed(wordy.ask(stream=True).content).done
    wordy.engine.says(stream(said("word "), said("x" * 1_000_000), said(".", finish_reason="stop")))
    told = Streamed(wordy.ask(stream=True).content)
    assert told.text == "word "
    assert told.error is not None
    assert (told.error["code"], str(LARGEST) in told.error["message"]) == ("upstream_error", True)
    assert len(wordy.engine.requests) == 1


def test_a_stream_may_be_longer_than_one_piece(wordy: Wordy) -> None:
    wordy.engine.says(stream(*[said("word " * 10)] * 5000, said(".", finish_reason="stop")))
    told = Streamed(wordy.ask(stream=True).content)
    assert told.done
    assert len(told.text) > 2 * LARGEST
