"""Refusals in vLLM's shapes: a flat error envelope, with an integer code and the engine's own class names as types."""

from __future__ import annotations

from typing import Any

import orjson

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class Refusal(Exception):
    """A request that is answered with an error before any byte of a stream."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


def envelope(message: str, kind: str, param: str | None, code: int) -> dict[str, Any]:
    """Returns vLLM's error body."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid(message: str, param: str | None = None, value: object = None) -> Refusal:
    """Returns the error of vLLM's own validation, whose message spells out the parameter and its value."""
    extras = []
    if param is not None:
        extras.append(f"parameter={param}")
    if value is not None:
        extras.append(f"value={value}")
    text = f"{message} ({', '.join(extras)})" if extras else message
    return Refusal(400, envelope(text, "BadRequestError", param, 400))


def bad_request(message: str, param: str | None = None) -> Refusal:
    """Returns a 400 with this message."""
    return Refusal(400, envelope(message, "BadRequestError", param, 400))


def schema_error(kind: str, field: str, message: str, given: object) -> Refusal:
    """Returns the error for a body that does not fit the request's model."""
    detail = {"type": kind, "loc": ("body", field), "msg": message, "input": given}
    return Refusal(400, envelope(f"1 validation error:\n  {detail}", "Bad Request", f"body.{field}", 400))


def bad_json(position: int, reason: str) -> Refusal:
    """Returns the error for a body that is no JSON."""
    detail = {
        "type": "json_invalid",
        "loc": ("body", position),
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }
    return Refusal(400, envelope(f"1 validation error:\n  {detail}", "Bad Request", f"body.{position}", 400))


def unknown_model(name: str) -> Refusal:
    """Returns the error for a model that is not served here."""
    return Refusal(404, envelope(f"The model `{name}` does not exist.", "NotFoundError", "model", 404))


def engine_dead() -> Refusal:
    """Returns the error that every request gets once the engine process has died."""
    return Refusal(500, envelope(ENGINE_DEAD, "InternalServerError", None, 500))


def shutting_down() -> Refusal:
    """Returns the error for a request that comes during a drain."""
    return Refusal(503, envelope("The server is shutting down.", "ServiceUnavailableError", None, 503))


def stream_frame(message: str = ENGINE_DEAD, code: int = 500, kind: str = "InternalServerError") -> bytes:
    """Returns the event in which a broken generation ends. Unlike chunks it has spaces after `:` and `,`."""
    text = orjson.dumps(message).decode()
    return (f'data: {{"error": {{"message": {text}, "type": "{kind}", "param": null, "code": {code}}}}}\n\n').encode()
