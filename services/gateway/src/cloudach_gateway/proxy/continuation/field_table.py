"""Which fields of a request hold for its continuation from token ids, and how: pure.

The rest of a broken answer is asked for at /v1/completions with the prompt's and the answer's token ids as the prompt.
A field is carried over, left out, adjusted, or it stands in the way, as `openai_wire.fields` has it. A field that is
not known there stands in the way too, because nothing proves that it carries over. docs/failover.md explains the
entries; `tests/proxy/test_carry.py` holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai_wire.fields import FIELDS, Blocks, Continuation

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

_GREEDY = 1e-5  # vLLM takes temperatures below for 0

_CARRIED = frozenset(name for name, field in FIELDS.items() if field.continuation is Continuation.CARRIED)
_INDIFFERENT = _CARRIED | {name for name, field in FIELDS.items() if field.continuation is Continuation.DROPPED}


def is_sampled(fields: Mapping[str, Any]) -> bool:
    """Whether another run may draw other tokens. A temperature that is not named is the model's default."""
    temperature = fields.get("temperature")
    return not (isinstance(temperature, int | float) and temperature < _GREEDY)


def obstacle(path: str, fields: Mapping[str, Any]) -> str | None:
    """Why a request with these fields (the parsed body) could not be continued exactly from token ids; None if it can.

    `path` is '/v1/chat/completions' or '/v1/completions'.
    """
    for name, value in fields.items():
        if value is None or name in _INDIFFERENT:
            continue
        continuation = FIELDS[name].continuation if name in FIELDS else Continuation.UNKNOWN
        if isinstance(continuation, Blocks):
            if continuation.test(value, fields):
                return continuation.reason
        elif continuation is Continuation.UNKNOWN:
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
    body = {name: value for name, value in fields.items() if name in _CARRIED and value is not None}
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
