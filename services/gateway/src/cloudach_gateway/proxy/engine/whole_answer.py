"""An engine's answer in one piece instead of a stream: read, checked, and written for the client. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from .chunk import SHAPE_ERRORS, BadChunk, EngineReportedError, described, is_error


class NoAnswer(Exception):
    """The engine's answer is well-formed and has nothing in it. The exception's text is for the log."""


def whole_answer(body: bytes, *, holds: str) -> dict[str, Any]:
    """Returns the answer in an engine's body. Raises EngineReportedError, BadChunk, NoAnswer.

    holds: the list that the answer must have.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadChunk(f"no JSON: {len(body)} bytes") from error
    if not isinstance(answer, dict):
        raise BadChunk(f"JSON, but no object: {len(body)} bytes")
    if is_error(answer):
        raise EngineReportedError(described(answer, len(body)), body)
    found = answer.get(holds)
    if found == []:
        raise NoAnswer(f"an answer without {holds}")
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise BadChunk(f"{holds} of another shape")
    return answer


def for_client(answer: dict[str, Any], model: str) -> bytes:
    """Returns the answer as bytes, with the model's name that the client used. Raises BadChunk."""
    if "model" in answer:
        answer["model"] = model
    try:
        return orjson.dumps(answer)
    except SHAPE_ERRORS as error:
        raise BadChunk("an answer nested too deeply") from error
