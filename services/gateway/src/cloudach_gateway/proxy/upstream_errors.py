"""What an engine's refusal becomes towards the client: pure.

A 4xx that the client caused is passed on in OpenAI's shape. Whatever else an engine, Ray Serve or HAProxy answers is
ours to explain: its text stays in the log.
"""

from __future__ import annotations

import re

import orjson

from ..errors import (
    GatewayError,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
    RequestTooLarge,
    UpstreamError,
    UpstreamTimeout,
)

OVERLOADED_RETRY_S = 2.0
NOT_READY_RETRY_S = 5.0

_CONTEXT = re.compile(r"maximum context length|longer than the maximum model length|max_model_len", re.I)


def from_response(status: int, body: bytes, *, upstream: str, path: str = "") -> GatewayError:
    """`body` is the engine's, of any form."""
    message, param, code = _read(body)
    cause = f"{upstream} answered {status}"
    error: GatewayError
    if status in (400, 422):  # the engine's text may quote the prompt: it is for the caller, not for our log
        if code is None and message is not None and _CONTEXT.search(message):
            code = "context_length_exceeded"
        error = InvalidRequest(message or "The model's engine refused the request.", param=param, code=code)
        error.cause = cause
        return error
    cause += f": {body[:500].decode('utf-8', 'replace')}"
    if status == 404 and path == "/v1/embeddings":
        error = InvalidRequest("This model does not serve embeddings.", param="model", code="unsupported_model")
    elif status == 413:
        error = RequestTooLarge("The request is too large for the model's engine.")
    elif status == 404:
        error = ModelNotReady("The model is not loaded at the moment.", retry_after_s=NOT_READY_RETRY_S)
    elif status in (429, 503):
        error = Overloaded("The model's engine is overloaded.", retry_after_s=OVERLOADED_RETRY_S)
    elif status in (408, 504):
        error = UpstreamTimeout("The model's engine did not answer in time.")
    else:
        error = UpstreamError("The model's engine failed to answer.")
    error.cause = cause
    return error


def from_error_event(payload: bytes, *, upstream: str) -> GatewayError:
    """The same for an error that came as the first event of a stream; vLLM puts the status into its `code`."""
    try:
        code = orjson.loads(payload)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code = None
    return from_response(code if isinstance(code, int) and 400 <= code <= 599 else 500, payload, upstream=upstream)


def may_retry(status: int, body: bytes) -> bool:
    """Whether another attempt is safe and has a chance: nothing was generated, and the request is not to blame.

    A 500 in the engine's own JSON may be this request's doing; in any other form it is the ingress without a replica.
    """
    return status in (502, 503) or (status == 500 and _read(body)[0] is None)


_DEAD_ENGINE = re.compile(rb"EngineCore|EngineDead|engine core", re.I)


def names_dead_engine(body: bytes) -> bool:
    """Whether an answer says that vLLM's engine process has died; its HTTP server outlives it."""
    return _DEAD_ENGINE.search(body, 0, 4096) is not None


def blames_request(error: str) -> bool:
    """Whether an error object in a running stream is about the request, so that another engine would say the same."""
    try:
        code = orjson.loads(error)["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False
    return isinstance(code, int) and 400 <= code < 500


def _read(body: bytes) -> tuple[str | None, str | None, str | None]:
    """message, param and code out of `{"error": {…}}` or vLLM's older flat form; Nones for anything else."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, None, None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None, None, None
    param, code = error.get("param"), error.get("code")
    # vLLM's own field checks say `body.temperature`; its `code` is the status again, a number.
    param = param.removeprefix("body.") if isinstance(param, str) else None
    return error["message"], param, code if isinstance(code, str) else None
