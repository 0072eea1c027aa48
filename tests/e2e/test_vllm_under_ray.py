"""Real vLLM, real weights, Ray Serve with HAProxy and direct streaming: what the gateway relies on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI

from tests.support.inference import CLOSED, Inference
from tests.support.listening import open_to_all
from tests.support.waiting import until

from .conftest import MODEL
from .leaving import ENDLESS, Engine, posted

pytestmark = pytest.mark.timeout(900)  # the first test waits for the engine's start


@pytest.fixture
def client(vllm: Inference) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{vllm.base_urls[MODEL]}/v1", api_key=vllm.api_key, max_retries=0) as sdk:
        yield sdk


def test_a_sensible_answer_token_by_token(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=32,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "Paris" in "".join(texts)
    assert len(texts) >= 5
    assert chunks[-2].choices[0].finish_reason == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens >= len(texts)


def test_the_default_model_samples_as_its_authors_recommend_unless_a_request_says_otherwise(client: OpenAI) -> None:
    """A seed makes sampling repeatable, so equal answers mean equal temperatures."""

    def answer(**sampling: float) -> str:
        completion = client.completions.create(
            model=MODEL, prompt="The three best things about winter are", max_tokens=48, seed=11, **sampling
        )
        return completion.choices[0].text

    unsaid = answer()
    assert unsaid == answer(temperature=0.2, top_p=0.9)
    assert unsaid != answer(temperature=1, top_p=1)
    assert unsaid != answer(temperature=1)
    assert unsaid != answer(temperature=0)


def test_two_tokens_do_not_come_at_once(vllm: Inference) -> None:
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 120, "ignore_eos": True, "stream": True}
    answer, pieces = b"", 0
    with posted(f"{vllm.base_urls[MODEL]}/v1/completions", vllm.api_key, body) as connection:
        while b"[DONE]" not in answer:
            piece = connection.recv(65536)
            assert piece, answer
            answer += piece
            pieces += 1
    assert pieces > 60, "a reader that is late for a moment finds some of them together"


def test_a_client_that_leaves_stops_the_engine(vllm: Inference, client: OpenAI) -> None:
    engine = Engine(vllm)
    with client.completions.create(
        model=MODEL, prompt="Count:", max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        for _, _ in zip(range(3), stream, strict=False):
            pass
        assert engine.running == 1
    stays_stopped(engine, client)


@pytest.mark.parametrize("late_body", [False, True])
def test_a_client_that_leaves_before_an_answer_in_one_piece(vllm: Inference, client: OpenAI, late_body: bool) -> None:
    engine = Engine(vllm)
    url = f"{vllm.base_urls[MODEL]}/v1/completions"
    with posted(url, vllm.api_key, {"model": MODEL, **ENDLESS}, late_body=late_body):
        until(lambda: engine.generated >= 3)
    stays_stopped(engine, client)


def stays_stopped(engine: Engine, client: OpenAI) -> None:
    """To the token: what it makes next is what is asked for next."""
    made = engine.must_stop()
    client.completions.create(model=MODEL, prompt="Hi", max_tokens=8, extra_body={"ignore_eos": True})
    assert engine.generated == made + 8
    assert engine.finished == 1


@pytest.mark.parametrize("question", ["What is the capital of France?", "Write a short story about a fox."])
def test_an_answer_is_continued_from_its_token_ids(client: OpenAI, question: str) -> None:
    whole = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=40,
        extra_body={"return_token_ids": True},
    ).model_dump()
    prompt, answer = whole["prompt_token_ids"], whole["choices"][0]["token_ids"]
    for cut in (1, len(answer) // 2, len(answer) - 1):
        rest = client.completions.create(
            model=MODEL,
            prompt=prompt + answer[:cut],
            temperature=0,
            max_tokens=40 - cut,
            extra_body={"return_token_ids": True},
        ).model_dump()
        assert rest["choices"][0]["token_ids"] == answer[cut:]


def test_locked_without_the_key(vllm: Inference) -> None:
    url = vllm.base_urls[MODEL]
    with OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(AuthenticationError):
            stranger.models.list()
        with pytest.raises(AuthenticationError):
            stranger.completions.create(model=MODEL, prompt="Hi")
    assert httpx.post(f"{url}/v1/completions", json={"model": MODEL, "prompt": "Hi"}).status_code == 401


def test_only_what_the_gateway_uses_is_served_and_only_with_the_key(vllm: Inference, client: OpenAI) -> None:
    """vLLM's own lock guards /v1 and little else: before ours, POST /invocations generated for anyone."""
    good = {"authorization": f"Bearer {vllm.api_key}"}
    body = {"model": MODEL, "prompt": "Hi", "max_tokens": 2, "tokens": [504]}
    with httpx.Client(base_url=vllm.base_urls[MODEL], timeout=60) as anyone:
        assert anyone.get("/health").status_code == 200
        for method, path in CLOSED:
            assert anyone.request(method, path, json=body).status_code == 401, path
            assert anyone.request(method, path, json=body, headers=good).status_code == 404, path
        assert anyone.get("/metrics").status_code == 401
        assert "vllm:generation_tokens_total" in anyone.get("/metrics", headers=good).text
        assert anyone.post("/detokenize", json=body).status_code == 401
        assert anyone.post("/detokenize", json=body, headers=good).status_code == 200
    stream = client.completions.create(model=MODEL, prompt="Once", max_tokens=8, stream=True)
    assert len(list(stream)) >= 8


def test_refusals(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="temperature must be in"):
        client.completions.create(model=MODEL, prompt="Hi", temperature=9)
    with pytest.raises(BadRequestError, match="maximum context length is 2048"):
        client.completions.create(model=MODEL, prompt=[504] * 2045, max_tokens=4)
    with pytest.raises(NotFoundError, match="does not exist"):
        client.completions.create(model="no-such-model", prompt="Hi")


def test_nothing_of_it_answers_on_other_interfaces(vllm: Inference) -> None:
    assert open_to_all(vllm.process.pid) == []
    port = urlsplit(vllm.base_urls[MODEL]).port
    assert port is not None
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    bound = {fields[1] for fields in listening if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")}
    assert bound == {f"0100007F:{port:04X}"}
    with socket.socket(socket.AF_INET6) as other, pytest.raises(OSError, match=r"refused|unreachable|assign"):
        other.connect(("::1", port))
