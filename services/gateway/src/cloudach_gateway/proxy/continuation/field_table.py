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

from .kinds import Kind

_GREEDY = 1e-5  # vLLM takes temperatures below for 0

_CARRIED = frozenset(name for name, field in FIELDS.items() if field.continuation is Continuation.CARRIED)
_INDIFFERENT = _CARRIED | {name for name, field in FIELDS.items() if field.continuation is Continuation.DROPPED}


def is_sampled(fields: Mapping[str, Any]) -> bool:
    """Whether another run may draw other tokens. A temperature that is not named is the model's default."""
    temperature = fields.get("temperature")
    return not (isinstance(temperature, int | float) and temperature < _GREEDY)


def obstacle(kind: Kind, fields: Mapping[str, Any]) -> str | None:
    """Why a request could not be continued exactly from token ids; None if it can. The fields are its parsed body."""
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
    return kind.obstacle(fields)


def continued(
    kind: Kind, fields: Mapping[str, Any], *, prompt: list[int], kept: int, left: int, logprobs: bool
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
        body["logprobs"] = kind.logprobs(fields)
    return body


def stop_strings(fields: Mapping[str, Any]) -> list[str]:
    stop = fields.get("stop")
    return [stop] if isinstance(stop, str) else list(stop or ())
