"""Which fields of a request its continuation from token ids takes over, and how: pure.

The rest of a broken answer is asked for at /v1/completions. The prompt is the token ids of the prompt and of the
answer. `openai_wire.fields` says whether a field is carried over, left out, adjusted, or stands in the way. A field
that it does not know stands in the way too, because nothing proves that it carries over. docs/failover.md explains the
entries, and `tests/proxy/continuation/test_field_table.py` holds them.
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
    """Returns whether another run may draw other tokens. Without a temperature the model's default may be above 0."""
    temperature = fields.get("temperature")
    return not (isinstance(temperature, int | float) and temperature < _GREEDY)


def obstacle(kind: Kind, fields: Mapping[str, Any]) -> str | None:
    """Returns why a request cannot be continued exactly from token ids; None if it can. fields: its parsed body."""
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
            return f"field {name}"  # the engine may accept it, and nobody knows what it makes of it
    if fields.get("seed") not in (None, -1) and is_sampled(fields):
        return "seeded sampling"
    if fields.get("spaces_between_special_tokens") is False and fields.get("skip_special_tokens") is False:
        return "spacing of special tokens"
    return kind.obstacle(fields)


def continued(
    kind: Kind, fields: Mapping[str, Any], *, prompt: list[int], kept: int, left: int, logprobs: bool
) -> dict[str, Any]:
    """Returns the body for /v1/completions, for a request without an obstacle.

    prompt: all token ids to go on from. The last `kept` of them are the answer's own. left: how many tokens may still
    come, at least 1. logprobs: the broken stream had log probabilities.
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
