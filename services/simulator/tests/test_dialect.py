"""The simulator's bytes beside what a real vLLM sent for the same request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Sim, StartSim

_RECORDED = json.loads((Path(__file__).parent / "recorded" / "vllm-0.29.0.json").read_text())
CASES: list[dict[str, Any]] = _RECORDED["cases"]
STREAMS = [case for case in CASES if "events" in case]
WHOLE = [case for case in CASES if case["status"] == 200 and "events" not in case and case["name"] != "health"]
REFUSALS = [case for case in CASES if case["status"] != 200]


def name(case: dict[str, Any]) -> str:
    return str(case["name"])


def shape(value: Any) -> Any:
    """Names, their order, and types; a list's shape is its first item's."""
    if isinstance(value, dict):
        return tuple((key, shape(item)) for key, item in value.items())
    if isinstance(value, list):
        return ("list", shape(value[0]) if value else None)
    if isinstance(value, bool | None):
        return value
    return "number" if isinstance(value, int | float) else type(value).__name__


def top_logprobs_as_list(value: Any) -> Any:
    """A completion's top_logprobs are keyed by token: compare their values only."""
    for choice in value.get("choices", []):
        logprobs = choice.get("logprobs")
        if logprobs and "top_logprobs" in logprobs:
            logprobs["top_logprobs"] = [list(item.values()) for item in logprobs["top_logprobs"]]
    return value


async def ask(sim: Sim, case: dict[str, Any], request: str | None = None) -> httpx.Response:
    headers = {"content-type": "application/json", **case.get("sent", {})}
    body = request if request is not None else case["request"]
    return await sim.http.request(case["method"], case["path"], content=body, headers=headers)


def events(text: str) -> list[str]:
    assert text.endswith("\n\n")
    lines = text[:-2].split("\n\n")
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    return [line[6:] for line in lines]


async def start(start_sim: StartSim) -> Sim:
    return await start_sim(models=("smollm2-135m",), max_model_len=2048)


@pytest.mark.parametrize("case", STREAMS, ids=name)
async def test_a_streams_chunks_have_the_recorded_shapes(case: dict[str, Any], start_sim: StartSim) -> None:
    sim = await start(start_sim)
    recorded = [json.loads(event) for event in case["events"] if event != "[DONE]"]
    wanted = {shape(chunk) for chunk in recorded}
    known = {shape(json.loads(e)) for c in STREAMS for e in c["events"] if e != "[DONE]"}
    seen = set()
    for attempt in range(200):
        # Another prompt, another answer: until all that the real engine showed was seen.
        request = json.loads(case["request"])
        if "messages" in request:
            request["messages"][0]["content"] += " " * attempt
        if isinstance(request.get("prompt"), list) and isinstance(request["prompt"][0], int):
            request["prompt"] = [token % 1000 + attempt for token in request["prompt"]]
        if "tools" in request:
            request["max_tokens"] = max(1, request["max_tokens"] - attempt)
        if request.get("stop"):
            request["stop"] = [" the", "a", "e"]
        response = await ask(sim, case, json.dumps(request))
        assert response.status_code == 200, response.text
        told = events(response.text)
        assert told[-1] == "[DONE]"
        chunks = [json.loads(event) for event in told[:-1]]
        assert shape(chunks[0]) == shape(recorded[0])
        assert [c["object"] for c in chunks] == [recorded[0]["object"]] * len(chunks)
        # Compact, as the real engine's: the same text when it is written again without spaces.
        assert told[:-1] == [json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in chunks]
        seen |= {shape(chunk) for chunk in chunks}
        if wanted <= seen:
            break
    assert wanted <= seen
    if "logprobs" not in case["name"] and not case.get("partial"):
        assert seen <= known
    assert list(response.headers) == case["headers"]


@pytest.mark.parametrize("case", WHOLE, ids=name)
async def test_a_whole_answer_has_the_recorded_shape(case: dict[str, Any], start_sim: StartSim) -> None:
    sim = await start(start_sim)
    request = case["request"]
    if case["name"] == "Chat, tools auto, no stream":
        # The real model chose not to call; here that is what an assistant's last word brings.
        request = json.dumps({**json.loads(request), "messages": [{"role": "assistant", "content": "Weather?"}]})
    response = await ask(sim, case, request)
    assert response.status_code == 200, response.text
    assert shape(top_logprobs_as_list(response.json())) == shape(top_logprobs_as_list(json.loads(case["body"])))
    assert list(response.headers) == case["headers"]


@pytest.mark.parametrize("case", REFUSALS, ids=name)
async def test_a_refusal_is_the_recorded_one_to_the_byte(case: dict[str, Any], start_sim: StartSim) -> None:
    sim = await start(start_sim)
    response = await ask(sim, case)
    assert response.status_code == case["status"]
    assert response.text == case["body"]
    assert list(response.headers) == case["headers"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_does_not_fit_is_refused_in_vllms_words(start_sim: StartSim, stream: bool) -> None:
    sim = await start(start_sim)
    body = {"prompt": "hello " * 3000, "max_tokens": 4, "stream": stream}
    response = await sim.http.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "This model's maximum context length is 2048 tokens. However, you requested 4 output tokens and "
        "your prompt contains at least 2045 input tokens, for a total of at least 2049 tokens. Please reduce the "
        "length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=2045)",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }


async def test_the_ids_follow_the_request_id(start_sim: StartSim) -> None:
    sim = await start(start_sim)
    chat = await sim.chat(max_tokens=1, headers={"x-request-id": "abc"})
    assert (chat.json()["id"], chat.headers["x-request-id"]) == ("chatcmpl-abc", "abc")
    text = await sim.http.post("/v1/completions", json={"prompt": "x", "request_id": "of-the-body"})
    assert text.json()["id"] == "cmpl-of-the-body"
    bare = await sim.chat(max_tokens=1)
    assert bare.json()["id"] == f"chatcmpl-{bare.headers['x-request-id']}"
