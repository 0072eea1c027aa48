from __future__ import annotations

from typing import Any

import pytest
from cloudach_gateway.proxy.continuation import field_table
from cloudach_gateway.proxy.continuation.field_table import obstacle
from cloudach_gateway.proxy.continuation.kinds import CHAT, COMPLETIONS, Kind

PLAIN = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
TOOLS = [{"type": "function", "function": {"name": "look"}}]


def chat(**fields: Any) -> str | None:
    return obstacle(CHAT, {**PLAIN, **fields})


def completion(**fields: Any) -> str | None:
    return obstacle(COMPLETIONS, {"model": "m", "prompt": "Hi", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.2},
        {"logit_bias": {"5": 1}, "allowed_token_ids": [1, 2], "ignore_eos": True, "stop_token_ids": [7]},
        {"stop": ["a", "b"], "include_stop_str_in_output": True, "max_completion_tokens": 9, "min_tokens": 2},
        {"logprobs": True, "top_logprobs": 5},
        {"seed": 5, "temperature": 0},
        {"seed": 5, "temperature": 1e-6},
        {"seed": -1},
        {"n": 1, "best_of": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "echo": False, "bad_words": []},
        {"tools": TOOLS, "tool_choice": "none", "parallel_tool_calls": True},
        {"tool_choice": "none"},
        {"response_format": {"type": "text"}, "reasoning_effort": "low", "include_reasoning": True},
        {"chat_template_kwargs": {"thinking": False}, "documents": [], "add_generation_prompt": True},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "tool", "content": "3"}]},
        {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "modalities": ["text"]},
        {"tool_that_is_unknown": None, "n": None, "response_format": None, "structured_outputs": None},
    ],
)
def test_what_is_no_obstacle(fields: dict[str, Any]) -> None:
    assert chat(**fields) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"n": 2}, "several choices"),
        ({"best_of": 2}, "several choices"),
        ({"use_beam_search": True}, "beam search"),
        ({"seed": 5}, "seeded sampling"),
        ({"seed": 0, "temperature": 0.5}, "seeded sampling"),
        ({"presence_penalty": 0.1}, "presence penalty"),
        ({"frequency_penalty": -0.1}, "frequency penalty"),
        ({"bad_words": ["x"]}, "bad words"),
        ({"response_format": {"type": "json_object"}}, "guided decoding"),
        ({"structured_outputs": {"choice": ["a"]}}, "guided decoding"),
        ({"guided_regex": "a"}, "field guided_regex"),
        ({"tools": TOOLS}, "tool calls"),
        ({"tools": TOOLS, "tool_choice": None}, "tool calls"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool calls"),
        ({"tool_choice": {"type": "function", "function": {"name": "look"}}}, "tool calls"),
        ({"functions": [{}]}, "tool calls"),
        ({"include_reasoning": False}, "hidden reasoning"),
        ({"thinking_token_budget": 5}, "thinking budget"),
        ({"echo": True}, "echo"),
        ({"prompt_logprobs": 0}, "prompt log probabilities"),
        ({"logprobs": True, "top_logprobs": -1}, "all log probabilities"),
        ({"logprobs": True, "logprob_token_ids": [1]}, "log probabilities of chosen tokens"),
        ({"return_tokens_as_token_ids": True}, "tokens named by id"),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"vllm_xargs": {"a": 1}}, "logits processors"),
        ({"kv_transfer_params": {}}, "KV transfer"),
        ({"skip_special_tokens": False, "spaces_between_special_tokens": False}, "spacing of special tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "parts that are no text"),
        ({"min_tokens": "3"}, "field min_tokens"),
        ({"something_new": 0}, "field something_new"),
    ],
)
def test_obstacles(fields: dict[str, Any], reason: str) -> None:
    assert chat(**fields) == reason


@pytest.mark.parametrize("prompt", ["Hi", [1, 2, 3], ["Hi"], [[1, 2]]])
def test_one_prompt(prompt: Any) -> None:
    assert completion(prompt=prompt) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": ["a", "b"]}, "several prompts"),
        ({"prompt": [[1], [2]]}, "several prompts"),
        ({"prompt_embeds": "x"}, "prompt embeddings"),
        ({"suffix": ""}, "suffix"),
    ],
)
def test_obstacles_of_completions(fields: dict[str, Any], reason: str) -> None:
    assert completion(**fields) == reason


def continued(kind: Kind, fields: dict[str, Any], kept: int = 4, *, logprobs: bool = False) -> dict[str, Any]:
    body = field_table.continued(kind, fields, prompt=[1, 2, 3, 4, 5], kept=kept, left=9, logprobs=logprobs)
    assert body.pop("prompt") == [1, 2, 3, 4, 5]
    assert body.pop("max_tokens") == 9
    return body


def test_what_a_continuation_asks_for() -> None:
    kept = {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "temperature": 0.3,
        "repetition_penalty": 1.1,
        "stop": ["x"],
        "cache_salt": "s",
    }
    dropped = {"messages": [{}], "max_tokens": 20, "tool_choice": "none", "add_generation_prompt": True, "seed": None}
    assert continued(CHAT, {**kept, **dropped, "truncate_prompt_tokens": 5, "request_id": "r", "user": None}) == kept


@pytest.mark.parametrize(("kept", "expected"), [(0, {"min_tokens": 6}), (5, {"min_tokens": 1}), (6, {}), (9, {})])
def test_min_tokens_that_are_left(kept: int, expected: dict[str, int]) -> None:
    assert continued(CHAT, {"min_tokens": 6}, kept) == expected


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (CHAT, {"logprobs": True}, {"logprobs": 0}),
        (CHAT, {"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        (COMPLETIONS, {"logprobs": 3}, {"logprobs": 3}),
        (COMPLETIONS, {"logprobs": 0}, {"logprobs": 0}),
    ],
)
def test_log_probabilities(kind: Kind, fields: dict[str, Any], expected: dict[str, int]) -> None:
    assert continued(kind, fields, logprobs=True) == expected
    assert continued(kind, fields, logprobs=False) == {}


@pytest.mark.parametrize(
    ("kind", "fields", "limit"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, 7),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": None}, 5),
        (COMPLETIONS, {"max_tokens": 5}, 5),
        (COMPLETIONS, {"max_tokens": None}, 16),
        (COMPLETIONS, {}, 16),
    ],
)
def test_the_longest_answer(kind: Kind, fields: dict[str, Any], limit: int | None) -> None:
    assert kind.answer_limit(fields) == limit
