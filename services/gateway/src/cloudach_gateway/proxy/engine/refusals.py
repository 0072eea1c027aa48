"""What an engine's refusal becomes towards the client: pure.

A 4xx that the client caused is passed on in OpenAI's shape, in the engine's own words. Whatever else an engine, Ray
Serve or HAProxy answers is ours to explain. Their words may quote a prompt, so the log only gets their kind and size.
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
    """`body` is the engine's, of any form. unserved: the client is told this where the engine lacks the path."""
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
    """Another attempt would generate it all once more, for nothing."""
    error = UpstreamError(f"The model's engine sent {problem}.", cause=f"{upstream}: {problem}")
    error.should_retry = False
    return error


def from_error_object(payload: bytes, *, upstream: str) -> GatewayError:
    """The same for an error that came behind a 200, in a stream or whole."""
    return from_response(status_in(payload), payload, upstream=upstream)


def status_in(payload: bytes) -> int:
    """The status that an error object stands for; 500 where it does not say. vLLM puts it into `code`."""
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
    """Whether another attempt is safe and has a chance: nothing was generated, and the request is not to blame.

    A 500 in the engine's own JSON may be this request's doing; in any other form it is the ingress without a replica.
    """
    return status in (502, 503) or (status == 500 and _read(_loaded(body))[0] is None)


_DEAD_ENGINE = re.compile(rb"EngineCore|EngineDead|engine core", re.I)


def names_dead_engine(status: int, body: bytes) -> bool:
    """Whether an answer says that vLLM's engine process has died; its HTTP server outlives it. A refusal of the
    request itself may quote any word of it, so only a status from 500 says so."""
    return status >= 500 and _DEAD_ENGINE.search(body, 0, 4096) is not None


def blames_request(payload: bytes) -> bool:
    """Whether an error in a running stream is about the request, so that another engine would say the same."""
    return 400 <= status_in(payload) < 500


# By `type` or `code`, in small letters, where an error object has no number.
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
    """message, param and code: of `{"error": {…}}`, of vLLM's older flat form, of FastAPI's `detail`, or of a mere
    text. Nones for anything else."""
    message = _words(answer)
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if message is None or not isinstance(error, dict):
        return message, None, None
    param, code = error.get("param"), error.get("code")
    # vLLM's own field checks say `body.temperature`; its `code` is the status again, a number.
    param = param.removeprefix("body.") if isinstance(param, str) else None
    return message, param, code if isinstance(code, str) and _as_status(code) is None else None


def _words(said: Any, depth: int = 4) -> str | None:
    """The text in an error, wherever it stands."""
    if isinstance(said, str):
        return _trimmed(said)
    if isinstance(said, dict) and depth:
        found = (_words(said[name], depth - 1) for name in ("message", "error", "detail", "msg") if name in said)
        return next(filter(None, found), None)
    if isinstance(said, list) and depth:
        found = (_words(part, depth - 1) for part in said[:8])
        return _trimmed("; ".join(filter(None, found)))
    return None


def _plain_text(body: bytes, headers: Headers) -> str | None:
    """The whole body, if it is no more than a text; a page is not repeated."""
    if media_type(headers) not in ("text/plain", "") or body.lstrip()[:1] in (b"<", b"{", b"["):
        return None
    try:
        return _trimmed(body.decode())
    except UnicodeDecodeError:
        return None


def _trimmed(text: str) -> str | None:
    text = text.strip()
    return text[: _LONGEST_WORDS - 1] + "…" if len(text) > _LONGEST_WORDS else text or None
