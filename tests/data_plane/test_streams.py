"""What streams and whole answers look like to the official SDK and on the wire."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.data_plane.conftest import Stack, chat
from tests.support.stack import ALIAS, Simulator


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stack.gateway.base_url, api_key=stack.key, max_retries=0) as sdk:
        yield sdk


def events(stack: Stack, path: str = "/v1/chat/completions", **body: Any) -> tuple[httpx.Response, list[bytes]]:
    answer = stack.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.content.endswith(b"\n\n")
    return answer, answer.content.split(b"\n\n")[:-1]


def test_the_guides_wire_format(stack: Stack, sim: Simulator) -> None:
    answer, found = events(stack, **chat(model=ALIAS, stream=True, max_tokens=5))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in answer.headers
    assert found[-1] == b"data: [DONE]"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in found[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(chunks) == 6
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert not any("usage" in chunk for chunk in chunks[:-1])
    assert {chunk["model"] for chunk in chunks} == {ALIAS}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert b"token_ids" not in answer.content


def test_openais_usage_chunk(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**chat(max_tokens=5), stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 5
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks[:-1])


def test_cached_tokens_are_told_in_every_form(stack: Stack) -> None:
    """Where the engine tells them, also as zero."""
    options: list[dict[str, Any]] = [
        {},
        {"stream_options": {"include_usage": True}},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ]
    for path, body in (("chat/completions", chat()), ("completions", {"model": "sim", "prompt": "x"})):
        for option in options:
            _, found = events(stack, f"/v1/{path}", **body, max_tokens=3, stream=True, **option)
            told = [usage for event in found[:-1] if (usage := json.loads(event[6:]).get("usage"))][-1]
            assert told["prompt_tokens_details"] == {"cached_tokens": 0}, (path, option)
        for whole in ({}, {"prompt_logprobs": 0}):
            told = stack.post(f"/v1/{path}", json={**body, "max_tokens": 3, **whole}).json()["usage"]
            assert told["prompt_tokens_details"]["cached_tokens"] == 0, (path, whole)


def test_no_usage(stack: Stack) -> None:
    answer, _ = events(stack, **chat(stream=True, max_tokens=5, stream_options={"include_usage": False}))
    assert b'"usage"' not in answer.content


def test_tokens_arrive_one_by_one(stack: Stack, sim: Simulator) -> None:
    """The engine gives no token before the client has the one before."""
    sim.arm("stall@1")
    with httpx.stream(
        "POST",
        f"{stack.gateway.base_url}/chat/completions",
        headers={"authorization": f"Bearer {stack.key}"},
        json=chat(stream=True, max_tokens=10, ignore_eos=True),
        timeout=30,
    ) as answer:
        parts, read = answer.iter_raw(), b""
        for tokens in range(1, 10):
            while read.count(b'"content"') < 1 + tokens:  # and the role
                read += next(parts)
            assert sim.stats()["sent_tokens_total"] == tokens
            assert sim.wake(steps=1) == 1
        read += b"".join(parts)
    assert read.count(b'"content"') == 11
    assert read.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_streamed_and_whole_answers_say_the_same(stack: Stack, path: str) -> None:
    chatting = path == "/v1/chat/completions"
    body: dict[str, Any] = chat(max_tokens=30) if chatting else {"model": "sim", "prompt": "Once", "max_tokens": 30}
    whole = stack.post(path, json=body).json()
    _, found = events(stack, path, **body, stream=True)
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in found[:-1]]
    if chatting:
        assert (
            "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
            == (whole["choices"][0]["message"]["content"])
        )
    else:
        assert "".join(c["choices"][0]["text"] for c in chunks) == whole["choices"][0]["text"]
    assert chunks[-1]["usage"] == _without_nulls(whole["usage"])
    assert whole["object"] == ("chat.completion" if chatting else "text_completion")
    assert whole["choices"][0]["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"]


def _without_nulls(told: dict[str, Any]) -> dict[str, Any]:
    """As vLLM states usage in streams."""
    kept = {name: value for name, value in told.items() if value is not None}
    return {name: _without_nulls(value) if isinstance(value, dict) else value for name, value in kept.items()}


def test_a_gathered_answer_is_the_engines_own(stack: Stack) -> None:
    """What the gateway puts together from a stream equals what the engine answers whole, field by field."""
    text: dict[str, Any] = {"model": "sim", "prompt": "hi", "max_tokens": 6}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("chat/completions", chat(max_tokens=12)),
        ("chat/completions", chat(max_tokens=12, n=3, temperature=1, seed=5)),
        ("chat/completions", chat(max_tokens=12, logprobs=True, top_logprobs=2)),
        ("chat/completions", chat(max_tokens=12, logprobs=True, top_logprobs=0)),
        ("chat/completions", chat(max_tokens=200, stop=["e"])),
        ("chat/completions", chat(max_tokens=12, return_token_ids=True)),
        ("chat/completions", chat(max_tokens=12, prompt_logprobs=0)),
        ("completions", text | {"prompt_logprobs": 0}),
        ("completions", text),
        ("completions", text | {"prompt": [[1, 17], [3]], "max_tokens": 12}),
        ("completions", text | {"logprobs": 0}),
        ("completions", text | {"logprobs": 1, "stop": ["zzzzzz"]}),  # text lags behind its tokens
        ("completions", text | {"logprobs": 0, "max_tokens": 60, "prompt": "🌊 海"}),  # characters of several tokens
        ("completions", text | {"return_token_ids": True, "n": 2, "temperature": 1, "seed": 5}),
    ]
    for path, body in asked:
        ours = stack.post(f"/v1/{path}", json=body)
        own = httpx.post(f"{stack.sim.url}/v1/{path}", json=body)
        assert [*_but_for_its_own(ours).items()] == [*_but_for_its_own(own).items()], body


def test_log_probabilities_of_the_prompts_own_tokens(stack: Stack) -> None:
    """Zero asks for them, and for none of the others."""
    for path, body in (("chat/completions", chat()), ("completions", {"model": "sim", "prompt": "Once upon"})):
        answer = stack.post(f"/v1/{path}", json={**body, "max_tokens": 2, "prompt_logprobs": 0}).json()
        told = answer["prompt_logprobs"] if path == "chat/completions" else answer["choices"][0]["prompt_logprobs"]
        assert [None if position is None else len(position) for position in told] == [
            None,
            *[1] * (answer["usage"]["prompt_tokens"] - 1),
        ]


def _but_for_its_own(answer: httpx.Response) -> dict[str, Any]:
    """All but what no two answers share."""
    told: dict[str, Any] = answer.json()
    assert {type(told.pop("id")), type(told.pop("created"))} == {str, int}
    return told


def test_tools_in_a_stream_and_whole(stack: Stack, client: openai.OpenAI) -> None:
    tools = [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            },
        }
    ]
    asked = chat("Weather?", tools=tools, tool_choice="required", max_tokens=300)
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    call = whole.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    with client.chat.completions.stream(**asked) as stream:  # type: ignore[arg-type]
        streamed = stream.get_final_completion()
    again = streamed.choices[0].message.tool_calls[0].function
    assert json.loads(again.arguments) == json.loads(call.function.arguments)
    assert stack.logged(outcome="finished", stream=True)["completion_tokens"] > 0


def test_unknown_fields_reach_the_engine(stack: Stack, sim: Simulator) -> None:
    sim.configure(rate=200)
    answer = stack.post(json=chat(max_tokens=50, min_tokens=50, ignore_eos=True, stop_token_ids=[]))
    assert answer.json()["usage"]["completion_tokens"] == 50


def test_several_prompts(stack: Stack) -> None:
    answer = stack.post("/v1/completions", json={"model": "sim", "prompt": ["a", "b", "c"], "max_tokens": 4}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Once", "n": 2, "temperature": 1},
        {"prompt": ["a", "b", "c"]},
        {"prompt": [[1, 17], [3]], "ignore_eos": False},  # one ends while the other goes on, often in the same read
    ],
)
def test_several_answers_in_one_stream(stack: Stack, sim: Simulator, fields: dict[str, Any]) -> None:
    body = {"model": ALIAS, "max_tokens": 12, "ignore_eos": True, **fields}
    answer, found = events(stack, "/v1/completions", **body, stream=True)
    assert b"token_ids" not in answer.content
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in found[:-1]]
    assert {chunk["model"] for chunk in chunks} == {ALIAS}
    _, counted = events(stack, "/v1/completions", **body, stream=True, stream_options={"include_usage": True})
    assert all(b'"usage":' in event for event in counted[:-1])
    whole = stack.post("/v1/completions", json=body).json()
    assert chunks[-1]["usage"] == _without_nulls(whole["usage"])
    for choice in whole["choices"]:
        texts = [c["choices"][0]["text"] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert "".join(texts) == choice["text"]


def test_an_engine_that_knows_only_openais_fields(sim: Simulator) -> None:
    """It is not asked for token ids; a cut stream is billed by its chunks."""
    from tests.support.stack import create_key, served_by, start_gateway

    with start_gateway({"models": [served_by(sim, dialect="openai")]}) as gateway:
        own = Stack(sim, gateway, create_key(gateway))
        answer, _ = events(own, **chat(stream=True, max_tokens=5))
        assert b'"usage":{"prompt_tokens"' in answer.content
        sim.arm("end@10")
        own.post(json=chat(stream=True, max_tokens=200, ignore_eos=True))
        entry = own.logged(outcome="failed")
        assert 5 <= entry["completion_tokens"] <= 10
        assert entry["prompt_tokens"] > 0


def test_an_echoed_prompt(stack: Stack) -> None:
    body = {"model": "sim", "prompt": "Once upon", "max_tokens": 4, "echo": True}
    assert stack.post("/v1/completions", json=body).json()["choices"][0]["text"].startswith("Once upon")
    _, found = events(stack, "/v1/completions", **body, stream=True)
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in found[:-1]]
    assert "".join(c["choices"][0]["text"] for c in chunks).startswith("Once upon")
    assert [c.get("usage") for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    stack.logged(completion_tokens=4, stream=True)


@pytest.mark.parametrize(
    "fault", ["split:1", "split:random:3", "crlf", "comment", "multiline", "crlf,multiline,split:7"]
)
def test_however_the_engine_cuts_its_bytes(stack: Stack, sim: Simulator, fault: str) -> None:
    body = chat("Tell me 🌊 and 海", stream=True, max_tokens=40, temperature=0)

    def contents() -> list[str]:
        _, found = events(stack, **body)
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in found[:-1]]
        return [c["choices"][0]["delta"].get("content", "") for c in chunks]

    plain = contents()
    sim.arm(fault)
    assert contents() == plain


def test_a_megabyte_event(stack: Stack, sim: Simulator) -> None:
    sim.arm("huge@2:1000000")
    answer, _ = events(stack, **chat(stream=True, max_tokens=5))
    assert len(answer.content) > 1_000_000
    assert answer.content.endswith(b"data: [DONE]\n\n")


def test_heartbeats_while_the_engine_is_silent(stack: Stack, sim: Simulator) -> None:
    from tests.support.stack import create_key, served_by, start_gateway

    config = {"models": [served_by(sim)], "timeouts": {"heartbeat_s": 0.3, "first_token_s": 10}}
    with start_gateway(config) as gateway:
        key = create_key(gateway)
        sim.arm("stall@0")
        began = time.monotonic()
        with httpx.stream(
            "POST",
            f"{gateway.base_url}/chat/completions",
            headers={"authorization": f"Bearer {key}"},
            json=chat(stream=True, max_tokens=3),
            timeout=30,
        ) as answer:
            parts, read = answer.iter_raw(), b""
            while read.count(b": keep-alive\n\n") < 4:
                read += next(parts)
            assert sim.wake() == 1
            read += b"".join(parts)
        beats = read.split(b"data: ")[0]
        assert beats == b": keep-alive\n\n" * (len(beats) // 14)
        assert 4 <= len(beats) // 14 <= (time.monotonic() - began) / 0.3
        sim.arm("prefill:1500")
        with openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as sdk:
            chunks = list(sdk.chat.completions.create(**chat(max_tokens=3), stream=True))  # type: ignore[call-overload]
        assert len(chunks) == 4, "the SDK does not see them"
        sim.arm("hang")
        with (
            openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0, timeout=1.0) as hasty,
            pytest.raises(openai.APITimeoutError),
        ):
            hasty.chat.completions.create(**chat(max_tokens=3))  # type: ignore[call-overload]


async def test_the_asynchronous_sdk(stack: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=stack.gateway.base_url, api_key=stack.key, max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(**chat(max_tokens=6), stream=True)  # type: ignore[call-overload]
        chunks = [chunk async for chunk in stream]
    assert len(chunks) == 7
    assert chunks[-1].usage.completion_tokens == 6


def test_models_are_listed_with_their_aliases(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"sim", ALIAS, "down"}
    assert client.models.retrieve(ALIAS).id == ALIAS


def test_the_log_tells_the_request_but_not_its_text(stack: Stack) -> None:
    answer = stack.post(json=chat("a very secret prompt", max_tokens=3))
    entry = stack.logged(request_id=answer.headers["x-request-id"])
    assert (entry["tenant"], entry["model"], entry["status"]) == ("tests", "sim", 200)
    assert entry["completion_tokens"] == 3
    assert entry["ttft_ms"] > 0
    assert "secret" not in stack.gateway.output
    assert stack.key not in stack.gateway.output
