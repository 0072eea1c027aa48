"""Gives each response its request id and limits, each failure its API's error form, and each request a log line."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from cloudach_service import logs
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import metrics
from ..errors import GatewayError, InternalError, LimitState
from ..record import SCOPE_KEY, RequestRecord
from ..tracing.tracer import Tracer
from .dialect import OPENAI, ClientDialect
from .sink import send_json

_log = logging.getLogger("cloudach.request")


class Envelope:
    def __init__(self, app: ASGIApp, dialect: ClientDialect = OPENAI, tracer: Tracer | None = None) -> None:
        self._app = app
        self._dialect = dialect
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(method=scope["method"], path=scope["path"])
        scope[SCOPE_KEY] = record
        if self._tracer is not None:
            self._tracer.begin(scope["headers"], record)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_headers(record)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except GatewayError as error:
            record.end_with(error)
            if record.status is None:
                await respond(error, send_with_headers, record, self._dialect)
        except Exception as exception:
            record.error = InternalError("Something went wrong on our side.", cause=repr(exception))
            _log.exception("unhandled error in a request", extra={"request_id": record.id})
            if record.status is not None:
                raise  # the response has begun: the server has to cut the connection
            await respond(record.error, send_with_headers, record, self._dialect)
        finally:
            _finish(record, self._tracer)


async def respond(error: GatewayError, send: Send, record: RequestRecord, dialect: ClientDialect) -> None:
    if error.limits is not None:
        record.limits = error.limits
    headers = [*error.retry_headers(), *error.headers]
    await send_json(send, dialect.error_body(error), status=error.status, headers=headers)


def _headers(record: RequestRecord) -> list[tuple[bytes, bytes]]:
    found = [(b"x-request-id", record.id.encode())]
    if record.limits is not None:
        found += limit_headers(record.limits)
    return found


_LIMITS = (
    (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
)


def limit_headers(limits: LimitState) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for (limit, remaining, reset), budget in zip(_LIMITS, (limits.requests, limits.tokens), strict=True):
        if budget is not None:
            found += [
                (limit, b"%d" % budget.limit),
                (remaining, b"%d" % max(0, budget.remaining)),
                (reset, duration(budget.reset_s).encode()),
            ]
    return found


def duration(seconds: float) -> str:
    """Returns a duration as OpenAI writes it: `12ms`, `1s`, `6m0s`."""
    milliseconds = max(0, round(seconds * 1000))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    text = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{text}" if minutes else text


def _finish(record: RequestRecord, tracer: Tracer | None) -> None:
    took = record.age_s
    metrics.observe(record, took)
    if record.route == "health":
        return
    if tracer is not None:
        tracer.ended(record, record.started + took)
    line: dict[str, Any] = {
        "request_id": record.id,
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "duration_ms": round(took * 1000, 2),
        "tenant": record.tenant,
        "key_id": record.key_id,
    }
    if record.model is not None:
        line |= {
            "model": record.model,
            "stream": record.stream,
            "outcome": record.outcome,
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
            "cached_tokens": record.cached_tokens,
            "ttft_ms": None if record.ttft_s is None else round(record.ttft_s * 1000, 2),
            "heartbeats": record.heartbeats,
        }
        if record.attempts:
            line["attempts"] = [attempt.log_fields() for attempt in record.attempts]
        if record.retries:
            line["retries"] = record.retries
        if record.failovers:
            line["failovers"] = [asdict(one) for one in record.failovers]
    if record.trace is not None:
        line |= {"trace_id": f"{record.trace.trace_id:032x}", "span_id": f"{record.trace.span_id:016x}"}
    level = logging.INFO
    if record.error is not None:
        line |= {"code": record.error.code, "cause": record.error.cause}
        if record.error.status >= 500:
            level = logging.WARNING
    logs.event(_log, level, "request", line)
