"""The official OpenAI SDK talks to the simulator as it would to the real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from .asks import TOOLS
from .sim_process import SimProcess

MESSAGES: Any = [{"role": "user", "content": "Tell me of the sea"}]


@pytest.fixture(scope="module")
def sim() -> Iterator[SimProcess]:
    with SimProcess("--rate", "0", "--api-key", "secret", "--model", "m", "--embedding-model", "e") as process:
        yield process


@pytest.fixture
def client(sim: SimProcess) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{sim.url}/v1", api_key="secret", max_retries=0) as made:
        yield made


def test_chat_whole_and_streamed(client: Any) -> None:
    whole = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=60)
    stream = client.chat.completions.create(
        model="m",
        messages=MESSAGES,
        max_tokens=60,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_chat_with_the_async_client(sim: SimProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{sim.url}/v1", api_key="secret") as client:
        whole = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=40)
        text = ""
        stream: Any = await client.chat.completions.create(
            model="m",
            messages=MESSAGES,
            max_tokens=40,
            stream=True,
        )
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        assert text == whole.choices[0].message.content


def test_completions_and_logprobs(client: Any) -> None:
    done = client.completions.create(model="m", prompt="Once", max_tokens=8, logprobs=1)
    assert done.choices[0].logprobs is not None
    assert len(done.choices[0].logprobs.tokens or []) == 8
    chat = client.chat.completions.create(
        model="m",
        messages=MESSAGES,
        max_tokens=5,
        logprobs=True,
        top_logprobs=3,
    )
    content = chat.choices[0].logprobs.content
    assert [len(entry.top_logprobs) for entry in content or []] == [3] * 5


def test_a_tool_call_streamed_and_whole_and_the_turn_after_it(client: Any) -> None:
    with client.chat.completions.stream(model="m", messages=MESSAGES, tools=TOOLS) as stream:
        streamed = stream.get_final_completion().choices[0]
    whole = client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS).choices[0]
    for choice in (streamed, whole):
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls or []
        assert json.loads(call.function.arguments) == {"city": "word"}
    turns = [*MESSAGES, whole.message, {"role": "tool", "tool_call_id": "x", "content": "Sunny"}]
    after = client.chat.completions.create(model="m", messages=turns, tools=TOOLS, max_tokens=500).choices[0]
    assert after.message.content
    assert not after.message.tool_calls


def test_embeddings(client: Any) -> None:
    made = client.embeddings.create(model="e", input=["the sea", "the sea", "a mountain"])
    one, same, other = (item.embedding for item in made.data)
    assert len(one) == 64
    assert one == same != other
    assert sum(x * x for x in one) == pytest.approx(1, abs=1e-4)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="m", input="x")


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["m", "e"]


def test_errors_become_the_sdks_exceptions(client: Any, sim: SimProcess) -> None:
    def ask(**fields: object) -> None:
        client.chat.completions.create(**{"model": "m", "messages": MESSAGES, "max_tokens": 5, **fields})

    with pytest.raises(openai.NotFoundError):
        ask(model="other")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        ask(temperature=9)
    with pytest.raises(openai.InternalServerError):
        ask(extra_headers={"x-sim-fault": "http:503"})
    with pytest.raises(openai.APIConnectionError):
        ask(extra_headers={"x-sim-fault": "refuse"})
    with (
        openai.OpenAI(base_url=f"{sim.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    broken = client.chat.completions.create(
        model="m",
        messages=MESSAGES,
        stream=True,
        extra_headers={"x-sim-fault": "error@3"},
    )
    with pytest.raises(openai.APIError, match="EngineCore"):
        list(broken)
