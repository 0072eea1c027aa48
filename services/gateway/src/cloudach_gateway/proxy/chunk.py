"""One event of an engine's stream, parsed."""

from __future__ import annotations

from typing import Any

import orjson


class EngineReportedError(Exception):
    """The engine put an error frame into its stream. `detail` is for the log, not for the client."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class EngineShutsDown(EngineReportedError):
    """The engine aborted the answer because it was told to end: nobody here asked for that."""


class BadChunk(Exception):
    """The engine sent something that is no chunk. Its text says nothing of the content."""


_ABORT = b'"finish_reason":"abort"'


def parse(payload: bytes) -> dict[str, Any]:
    """Raises EngineReportedError for an error frame, BadChunk for anything but a JSON object.

    A finish by "abort" is such an error: nobody here asked for it, so the engine shuts down.
    """
    if _ABORT in payload:
        raise EngineShutsDown("the engine aborted the answer")
    try:
        chunk = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadChunk(f"not JSON: {len(payload)} bytes") from error
    if not isinstance(chunk, dict):
        raise BadChunk(f"JSON, but no object: {len(payload)} bytes")
    if chunk.get("error") is not None:
        raise EngineReportedError(orjson.dumps(chunk["error"]).decode())
    return chunk


def has_text(choice: dict[str, Any]) -> bool:
    """Whether a choice of a chunk carries any of the answer."""
    delta = choice.get("delta") or {}
    return bool(choice.get("text") or any(value for key, value in delta.items() if key != "role"))
