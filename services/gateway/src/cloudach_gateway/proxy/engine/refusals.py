"""Turns an engine's refusal into the error that the client gets: pure.

A 4xx that the client caused is passed on in OpenAI's shape with the engine's own words. The gateway explains all other
answers of an engine, Ray Serve or HAProxy in its own words. Theirs may quote a prompt, so the log gets only their kind
and size.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from ...errors import (
    GatewayError,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
    RequestTooLarge,
    UpstreamError,
    UpstreamTimeout,
)
from .answer_headers import Headers, media_type, retry_after_s
from .chunk import TooLarge, described

OVERLOADED_RETRY_S = 2.0
NOT_READY_RETRY_S = 5.0

_CONTEXT = re.compile(r"maximum context length|longer than the maximum model length|max_model_len", re.I)
_LONGEST_WORDS = 10_000  # characters
_NO_HEADERS: Headers = {}


def from_response(
    status: int, body: bytes, *, upstream: str, unserved: str | None = None, headers: Headers = _NO_HEADERS
) -> GatewayError:
    """Returns the error for an answer that is not 200. The engine's body may have any form.

    unserved: the client is told this where the engine does not have the path.
    """
    answer = _loaded(body)
    cause = f"{upstream} answered {status}"
    error: GatewayError
    if status in (400, 422):
        message, param, code = _read(answer)
        message = message or _plain_text(body, headers)
        if code is None and message is not None and _CONTEXT.search(message):
            code = "context_length_exceeded"
        error = InvalidRequest(message or "The model's engine refused the request.", param=param, code=code)
        error.cause = cause
        return error
    if answer is None:
        cause += f" with {len(body)} bytes of {media_type(headers) or 'an unnamed type'}"
    else:
        cause += f" with {described(answer, len(body))}"
    if status == 404 and unserved is not None:
        error = InvalidRequest(unserved, param="model", code="unsupported_model")
    elif status == 413:
        error = RequestTooLarge("The request is too large for the model's engine.")
    elif status == 404:
        wait_s = max(NOT_READY_RETRY_S, retry_after_s(headers))
        error = ModelNotReady("The model is not loaded at the moment.", retry_after_s=wait_s)
    elif status in (429, 503):
        wait_s = max(OVERLOADED_RETRY_S, retry_after_s(headers))
        error = Overloaded("The model's engine is overloaded.", retry_after_s=wait_s)
    elif status in (408, 504):
        error = UpstreamTimeout("The model's engine did not answer in time.")
    else:
        error = UpstreamError("The model's engine failed to answer.")
    error.cause = cause
    return error


def too_large(problem: TooLarge, *, upstream: str) -> GatewayError:
    """Returns the error for an answer that is too large. A retry would be as large, so the client is told not to."""
    error = UpstreamError(f"The model's engine sent {problem}.", cause=f"{upstream}: {problem}")
    error.should_retry = False
    return error


def from_error_object(payload: bytes, *, upstream: str) -> GatewayError:
    """Returns the error for an error object that came after a 200, in a stream or as a whole answer."""
    return from_response(status_in(payload), payload, upstream=upstream)


def status_in(payload: bytes) -> int:
    """Returns the status that an error object stands for; 500 where it does not say. vLLM puts it into `code`."""
    answer = _loaded(payload)
    if not isinstance(answer, dict):
        return 500
    error = answer.get("error")
    holders = [error, answer] if isinstance(error, dict) else [answer]
    for holder in holders:
        for name in ("code", "status_code", "status"):
            status = _as_status(holder.get(name))
            if status is not None:
                return status
    for holder in holders:
        for name in ("type", "code"):
            status = _STATUS_OF.get(str(holder.get(name)).lower())
            if status is not None:
                return status
    return 500


def may_retry(status: int, body: bytes) -> bool:
    """Returns whether another attempt is safe and may succeed, because nothing was generated and the request is not to
    blame.

    The request may have caused a 500 in the engine's own JSON. In any other form it comes from an ingress that has no
    replica.
    """
    return status in (502, 503) or (status == 500 and _read(_loaded(body))[0] is None)


_DEAD_ENGINE = re.compile(rb"EngineCore|EngineDead|engine core", re.I)


def names_dead_engine(status: int, body: bytes) -> bool:
    """Returns whether an answer says that vLLM's engine process has died, which its HTTP server outlives.

    Only a status from 500 on says so, because a refusal of the request may quote any words from it.
    """
    return status >= 500 and _DEAD_ENGINE.search(body, 0, 4096) is not None


def blames_request(payload: bytes) -> bool:
    """Returns whether an error in a stream is about the request, so that another engine would refuse it too."""
    return 400 <= status_in(payload) < 500


# By `type` or `code` in lower case, for error objects without a number.
_STATUS_OF = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "context_length_exceeded": 400,
    "notfounderror": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 503,
}


def _as_status(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value, re.ASCII):
        return int(value)
    return value if type(value) is int and 400 <= value <= 599 else None


def _loaded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _read(answer: Any) -> tuple[str | None, str | None, str | None]:
    """Returns message, param and code of an error, each None if it is not there.

    Engines write `{"error": {…}}`, vLLM's older flat form, FastAPI's `detail`, or a mere text.
    """
    message = _message_in(answer)
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if message is None or not isinstance(error, dict):
        return message, None, None
    param, code = error.get("param"), error.get("code")
    # vLLM's field checks say `body.temperature`. Its `code` is a number, the status again.
    param = param.removeprefix("body.") if isinstance(param, str) else None
    return message, param, code if isinstance(code, str) and _as_status(code) is None else None


def _message_in(said: Any, depth: int = 4) -> str | None:
    """Returns the text in an error, wherever it stands."""
    if isinstance(said, str):
        return _trimmed(said)
    if isinstance(said, dict) and depth:
        found = (_message_in(said[name], depth - 1) for name in ("message", "error", "detail", "msg") if name in said)
        return next(filter(None, found), None)
    if isinstance(said, list) and depth:
        found = (_message_in(part, depth - 1) for part in said[:8])
        return _trimmed("; ".join(filter(None, found)))
    return None


def _plain_text(body: bytes, headers: Headers) -> str | None:
    """Returns the whole body if it is a plain text, and no page or JSON."""
    if media_type(headers) not in ("text/plain", "") or body.lstrip()[:1] in (b"<", b"{", b"["):
        return None
    try:
        return _trimmed(body.decode())
    except UnicodeDecodeError:
        return None


def _trimmed(text: str) -> str | None:
    text = text.strip()
    return text[: _LONGEST_WORDS - 1] + "…" if len(text) > _LONGEST_WORDS else text or None
