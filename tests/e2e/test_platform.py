"""The whole main job: the official SDK, the gateway with keys, limits and Valkey, Ray Serve, real vLLM."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Iterator

import openai
import pytest

from tests.support import guide_examples as examples
from tests.support.inference import Inference
from tests.support.stack import ALIAS, Gateway, create_key, start_gateway
from tests.support.waiting import until

from .conftest import MODEL
from .leaving import ENDLESS, Engine, posted

pytestmark = pytest.mark.timeout(900)  # the first test waits for the engine's start

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def gateway(vllm: Inference) -> Iterator[Gateway]:
    model = {"id": MODEL, "aliases": [ALIAS], "upstreams": [vllm.base_urls[MODEL]], "api_key": vllm.api_key}
    with start_gateway({"models": [model]}) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    return create_key(gateway)


@pytest.fixture
def client(gateway: Gateway, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as sdk:
        yield sdk


def test_the_guides_first_example(vllm: Inference, gateway: Gateway, key: str) -> None:
    """As it stands in the guide, against the real model; its words come one after the other. The poem of so small a
    model does not end by itself, so a hundred pieces of it have to do."""
    code = examples.read(examples.GUIDE)["basic.py"].code
    engine = Engine(vllm)
    pieces: list[bytes] = []
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdout=subprocess.PIPE,
        env={"CLOUDACH_BASE_URL": gateway.base_url, "CLOUDACH_API_KEY": key, "PATH": ""},
    ) as program:
        assert isinstance(program.stdout, io.BufferedReader)
        while len(pieces) < 100 and (piece := program.stdout.read1(65536)):
            if not pieces:
                assert engine.running == 1, "the first word is out before the last one is made"
            pieces.append(piece)
        program.kill()
    assert len(pieces) >= 20
    assert len(b"".join(pieces).split()) >= 20


def test_a_sensible_answer_with_the_guides_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model=ALIAS, messages=QUESTION, temperature=0, max_tokens=32, stream=True)  # type: ignore[call-overload]
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage.completion_tokens >= 8
    assert {chunk.model for chunk in chunks} == {ALIAS}
    assert not any("token_ids" in chunk.choices[0].model_extra for chunk in chunks)
    whole = client.chat.completions.create(model=ALIAS, messages=QUESTION, temperature=0, max_tokens=32)  # type: ignore[call-overload]
    assert "Paris" in whole.choices[0].message.content
    # vLLM leaves nulls out of a stream's usage, and has them in a whole answer's.
    assert whole.usage.model_dump(exclude_none=True) == chunks[-1].usage.model_dump(exclude_none=True)


def test_the_real_engines_refusals_in_openais_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(model=ALIAS, prompt="hello " * 5000, max_tokens=5)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as own_field:
        client.completions.create(model=ALIAS, prompt="Hi", extra_body={"top_k": -7})
    assert own_field.value.type == "invalid_request_error"
    assert "top_k" in own_field.value.message
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-cld-e2e-aaaaaaaaaa-" + "x" * 40).models.list()


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_stops_the_engine_and_pays_for_what_it_made(
    vllm: Inference, gateway: Gateway, key: str, stream: bool
) -> None:
    engine = Engine(vllm)
    ended = len(gateway.requests)
    with posted(f"{gateway.base_url}/completions", key, {"model": ALIAS, **ENDLESS, "stream": stream}):
        until(lambda: engine.generated >= 60)
        made = engine.generated
    generated = engine.must_stop()
    until(lambda: len(gateway.requests) > ended)
    entry = gateway.requests[-1]
    assert entry["stream"] is stream
    assert entry["outcome"] == "cancelled"
    assert made - 10 <= entry["completion_tokens"] <= generated, "but for what was in flight"


def test_limits_hold_before_the_engine_is_asked(vllm: Inference, gateway: Gateway) -> None:
    engine, key = Engine(vllm), create_key(gateway, requests_per_minute=2)
    with openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as limited:
        began = time.monotonic()
        for _ in range(2):
            limited.completions.create(model=ALIAS, prompt="Hi", max_tokens=2)
        with pytest.raises(openai.RateLimitError) as refused:
            limited.completions.create(model=ALIAS, prompt="Hi", max_tokens=2)
    # When the first of them is a minute old.
    assert 59 - (time.monotonic() - began) <= int(refused.value.response.headers["retry-after"]) <= 60
    assert engine.finished == 2
