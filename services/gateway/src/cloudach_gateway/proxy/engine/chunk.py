"""Parses and checks one event of an engine's stream. The other modules rely on the shape of what comes out."""

from __future__ import annotations

import re
from typing import Any

import orjson

SHAPE_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)
"""Code that reads a value raises these if the value has another shape than expected; orjson's errors are among them."""


class EngineReportedError(Exception):
    """The engine put an error into its stream. The exception's text is for the log. `payload` may quote a prompt."""

    def __init__(self, detail: str, payload: bytes = b"") -> None:
        super().__init__(detail)
        self.payload = payload


class EngineShutsDown(EngineReportedError):
    """The engine aborted the answer because it shuts down, not because the gateway asked for it."""


class NotReproducible(Exception):
    """The answer was generated again, and is not what the client was sent."""


class BadChunk(Exception):
    """The engine sent something that is no chunk. The exception's text says nothing of the content."""


LARGEST_ANSWER = 64 * 1024 * 1024


class TooLarge(BadChunk):
    """The engine sent an answer, or an event of a stream, that is larger than the gateway keeps in memory.

    The exception's text is for the client too.
    """

    def __init__(self, what: str, largest: int) -> None:
        super().__init__(f"{what} of more than {largest} bytes")


_DEEP = 250  # orjson writes 254 levels, and reads 1024


def parse(payload: bytes) -> dict[str, Any]:
    """Returns a chunk. Its `choices` is a list of objects, whose `index`, `delta`, `text` and `token_ids` have their
    types.

    Raises EngineReportedError for an error, and BadChunk for anything else that is no chunk. The finish reason "abort"
    is such an error: the gateway asks no engine to abort, so the engine shuts down.
    """
    try:
        chunk = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadChunk(f"not JSON: {len(payload)} bytes") from error
    if not isinstance(chunk, dict):
        raise BadChunk(f"JSON, but no object: {len(payload)} bytes")
    if is_error(chunk):
        raise EngineReportedError(described(chunk, len(payload)), payload)
    choices = chunk.get("choices")
    if choices is None:
        chunk["choices"] = choices = []
    elif not isinstance(choices, list):
        raise BadChunk("choices that are no list")
    for choice in choices:
        _check(choice, payload)
    if len(payload) > 2 * _DEEP and payload.count(b"[") + payload.count(b"{") > _DEEP:
        try:
            orjson.dumps(chunk)
        except orjson.JSONEncodeError as error:
            raise BadChunk("nested too deeply") from error
    return chunk


def _check(choice: Any, payload: bytes) -> None:
    if not isinstance(choice, dict):
        raise BadChunk("a choice that is no object")
    index = choice.get("index", 0)
    if type(index) is not int or index < 0:
        raise BadChunk("an index that is no number")
    delta, text = choice.get("delta"), choice.get("text")
    if delta is not None and not isinstance(delta, dict):
        raise BadChunk("a delta that is no object")
    if text is not None and not isinstance(text, str):
        raise BadChunk("a text that is no string")
    ids = choice.get("token_ids")
    if ids is not None and not (isinstance(ids, list) and _ONLY_NUMBERS.issuperset(map(type, ids))):
        raise BadChunk("token ids that are no numbers")
    reason = choice.get("finish_reason")
    if reason is None:
        return
    if reason == "abort":
        raise EngineShutsDown("the engine aborted the answer", payload)
    if reason == "error":
        raise EngineReportedError("the engine ended the answer with an error", payload)


_ONLY_NUMBERS = frozenset({int})


def has_text(choice: dict[str, Any]) -> bool:
    """Returns whether a choice of a chunk has any part of the answer."""
    delta = choice.get("delta") or {}
    return bool(choice.get("text") or any(value for key, value in delta.items() if key != "role"))


def is_error(answer: dict[str, Any]) -> bool:
    """Returns whether an engine's JSON object is an error, in any form that engines and their frameworks use."""
    if answer.get("error") is not None or answer.get("object") == "error":
        return True
    return not ("choices" in answer or "data" in answer) and ("message" in answer or "detail" in answer)


_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


def described(answer: Any, size: int) -> str:
    """Returns the kind of error that an engine reported, for the log. Its words stay out: they may quote a prompt."""
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    said = [f"{size} bytes"]
    if isinstance(error, dict):
        for name in ("type", "code"):
            value = error.get(name)
            if (isinstance(value, str) and _NAME.fullmatch(value)) or type(value) is int:
                said.append(f"{name} {value}")
    return f"an error ({', '.join(said)})"
