"""Which fields of a request hold for its continuation from token ids, and how: pure.

The rest of a broken answer is asked for at /v1/completions with the prompt's and the answer's token ids as the prompt.
A field is carried over, left out, adjusted, or it stands in the way. What this table does not know stands in the way
too: nothing proves that it carries over. docs/failover.md explains the entries; `tests/proxy/test_carry.py` holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

_GREEDY = 1e-5  # vLLM takes temperatures below for 0

# The same in both APIs, and a function of the next token's logits, of all token ids so far, or of neither.
CARRIED = frozenset(
    {
        *("model", "stream", "stream_options", "stream_interval", "return_token_ids"),
        *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "logit_bias", "allowed_token_ids"),
        *("stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos"),
        *("skip_special_tokens", "spaces_between_special_tokens"),
        *("user", "priority", "cache_salt", "session_id"),
    }
)

# They make the prompt, whose token ids are known by now, or they have no effect on the answer.
DROPPED = frozenset(
    {
        *("messages", "prompt", "documents", "chat_template", "chat_template_kwargs", "reasoning_effort"),
        *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
        *("truncate_prompt_tokens", "truncation_side", "mm_processor_kwargs", "media_io_kwargs"),
        *("return_prompt_text", "return_token_offsets", "return_assistant_tokens_mask", "request_id"),
        *("parallel_tool_calls", "length_penalty", "metadata", "store", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "prediction"),
    }
)

# Taken care of by `continued`.
ADJUSTED = frozenset({"max_tokens", "max_completion_tokens", "min_tokens", "logprobs", "top_logprobs", "seed"})

Test = Callable[[Any, Mapping[str, Any]], bool]


def _set(value: Any, _: Mapping[str, Any]) -> bool:
    return bool(value)


def _beyond_one(value: Any, _: Mapping[str, Any]) -> bool:
    return bool(value != 1)


def _given(_value: Any, _: Mapping[str, Any]) -> bool:
    return True


# Fields that stand in the way: when, and as what it is told. They look at the answer's own tokens from its beginning,
# at something besides token ids, or have the engine read the answer's text.
BLOCKING: dict[str, tuple[Test, str]] = {
    "n": (_beyond_one, "several choices"),
    "best_of": (_beyond_one, "several choices"),
    "use_beam_search": (_set, "beam search"),
    "presence_penalty": (_set, "presence penalty"),
    "frequency_penalty": (_set, "frequency penalty"),
    "bad_words": (_set, "bad words"),
    "repetition_detection": (_given, "repetition detection"),
    "thinking_token_budget": (_given, "thinking budget"),
    "include_reasoning": (lambda value, _: not value, "hidden reasoning"),
    "response_format": (
        lambda value, _: not (isinstance(value, Mapping) and value.get("type") == "text"),
        "guided decoding",
    ),
    "structured_outputs": (_given, "guided decoding"),
    "tools": (lambda value, fields: bool(value) and fields.get("tool_choice") != "none", "tool calls"),
    "tool_choice": (lambda value, _: value != "none", "tool calls"),
    "functions": (_set, "tool calls"),
    "function_call": (lambda value, _: value != "none", "tool calls"),
    "modalities": (lambda value, _: value != ["text"], "audio"),
    "audio": (_given, "audio"),
    "echo": (_set, "echo"),
    "suffix": (_given, "suffix"),
    "prompt_logprobs": (_given, "prompt log probabilities"),
    "prompt_embeds": (_given, "prompt embeddings"),
    "logprob_token_ids": (_given, "log probabilities of chosen tokens"),
    "return_tokens_as_token_ids": (_set, "tokens named by id"),
    "routed_experts_prompt_start": (_set, "routed experts"),
    "kv_transfer_params": (_given, "KV transfer"),
    "ec_transfer_params": (_given, "KV transfer"),
    "vllm_xargs": (_set, "logits processors"),
    "logits_processors": (_set, "logits processors"),
}


def is_sampled(fields: Mapping[str, Any]) -> bool:
    """Whether another run may draw other tokens. A temperature that is not named is the model's default."""
    temperature = fields.get("temperature")
    return not (isinstance(temperature, int | float) and temperature < _GREEDY)


def obstacle(path: str, fields: Mapping[str, Any]) -> str | None:
    """Why a request with these fields (the parsed body) could not be continued exactly from token ids; None if it can.

    `path` is '/v1/chat/completions' or '/v1/completions'.
    """
    for name, value in fields.items():
        if value is None or name in CARRIED or name in DROPPED:
            continue
        if name in BLOCKING:
            blocks, reason = BLOCKING[name]
            if blocks(value, fields):
                return reason
        elif name not in ADJUSTED:
            return f"field {name}"
        elif name != "logprobs" and (not isinstance(value, int) or isinstance(value, bool)):
            return f"field {name}"  # the engine may read it all the same; how, is its own affair
    if fields.get("seed") not in (None, -1) and is_sampled(fields):
        return "seeded sampling"
    if fields.get("spaces_between_special_tokens") is False and fields.get("skip_special_tokens") is False:
        return "spacing of special tokens"
    if path == CHAT:
        return _chat_obstacle(fields)
    return "several prompts" if choices(fields) != 1 else None


def choices(fields: Mapping[str, Any]) -> int:
    """How many answers the request asks for."""
    prompt = fields.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return prompts * (fields.get("n") or 1)


def continued(
    path: str, fields: Mapping[str, Any], *, prompt: list[int], kept: int, left: int, logprobs: bool
) -> dict[str, Any]:
    """The body for /v1/completions. prompt: all token ids to go on from, the last `kept` of them the answer's own.
    left: the most tokens to come, at least 1. logprobs: whether the broken stream had them.

    Only for fields without an obstacle.
    """
    body = {name: value for name, value in fields.items() if name in CARRIED and value is not None}
    body["prompt"] = prompt
    body["max_tokens"] = left
    if (least := (fields.get("min_tokens") or 0) - kept) > 0:
        body["min_tokens"] = least
    if logprobs:
        body["logprobs"] = fields.get("top_logprobs") or 0 if path == CHAT else fields["logprobs"]
    return body


def answer_limit(path: str, fields: Mapping[str, Any]) -> int | None:
    """The most tokens of the answer that the request names; None where only the model's context limits it."""
    if path == CHAT:
        limit = fields.get("max_completion_tokens")
        return fields.get("max_tokens") if limit is None else limit
    limit = fields.get("max_tokens")
    return 16 if limit is None else limit  # OpenAI's default; vLLM takes null for it too


def stop_strings(fields: Mapping[str, Any]) -> list[str]:
    stop = fields.get("stop")
    return [stop] if isinstance(stop, str) else list(stop or ())


def _chat_obstacle(fields: Mapping[str, Any]) -> str | None:
    for message in fields.get("messages") or ():
        content = message.get("content")
        if isinstance(content, list) and any(part.get("type") != "text" for part in content):
            return "parts that are no text"
    if fields.get("logprobs") and fields.get("top_logprobs") == -1:
        return "all log probabilities"  # /v1/completions has no word for them
    return None
