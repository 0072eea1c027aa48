"""Makes the spans of one request from its record. Pure.

    POST /v1/chat/completions      SERVER, below the client's span
      admission                    INTERNAL, with Redis' round trip
      turn                         INTERNAL, one for each wait before an engine
      chat MODEL                   CLIENT, one for each attempt; the engine's own span is below it

Nothing of a prompt, an answer or a key gets in. Texts come from the catalog, from Redis or from this code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar
from urllib.parse import urlsplit

from cloudach_service.traces import encoding
from cloudach_service.traces.spans import Event, Kind, Span, Value
from cloudach_service.traces.w3c import new_span_id

from ..errors import GatewayError, InvalidRequest
from ..record import OPERATIONS, AttemptRecord, RequestRecord, TraceIds
from . import names

_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_KNOWN_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_NO_API = frozenset({"other", "health"})  # routes without a path of their own
_MOST_WAITS = 128  # of a request that waits for an hour, the first ones and the last one
_MOST_ATTEMPTS = 128
_OUR_CODES = frozenset({"context_length_exceeded", "unsupported_model"})  # which the gateway itself gives to refusals
_SUCCESSES = frozenset({"completed", "let_go"})

Told = TypeVar("Told")
Clock = Callable[[float], int]
"""Turns seconds of `time.perf_counter` into nanoseconds since 1970."""


def tree(record: RequestRecord, ended_at: float, clock: Clock, kept: str | None) -> list[Span]:
    """Returns the spans, the request's own first. ended_at: seconds of `time.perf_counter`.

    kept: why they are exported although the trace is not sampled.
    """
    ids = record.trace
    if ids is None:
        return []
    spans = [_request(record, ids, ended_at, clock, kept)]
    if record.admission is not None:
        spans.append(_admission(record, ids, record.admission, clock))
    for wait in _some(record.waits, _MOST_WAITS):
        known: dict[str, Value] = {names.TURN: wait.kind}
        spans.append(_inner(ids, "turn", clock(wait.began_at), clock(wait.ended_at), known))
    last = len(record.attempts)
    spans += [
        _attempt(record, ids, attempt, number, ended_at, clock, last=number == last)
        for number, attempt in _some([*enumerate(record.attempts, 1)], _MOST_ATTEMPTS)
    ]
    return spans


def _some(all_of_them: list[Told], most: int) -> list[Told]:
    """Returns the first ones and the last one of many, because a request may wait and try for as long as it lasts."""
    return all_of_them if len(all_of_them) <= most else [*all_of_them[: most - 1], all_of_them[-1]]


def settlement(ids: TraceIds, began_at: float, written_at: float, clock: Clock) -> list[Span]:
    """Returns the span of a settlement, which reaches Redis after the request has ended."""
    return [_inner(ids, "settle", clock(began_at), clock(written_at), {})]


def _request(record: RequestRecord, ids: TraceIds, ended_at: float, clock: Clock, kept: str | None) -> Span:
    known: dict[str, Value] = {names.REQUEST_ID: record.id}
    if record.status is not None:  # a client that left early got none
        known[names.HTTP_STATUS] = record.status
    if record.ttft_s is not None:
        known[names.FIRST_TOKEN_S] = record.ttft_s
    if kept is not None:
        known[names.KEPT] = kept
    failed = _failure(record)
    if failed is not None:
        known[names.ERROR_TYPE] = failed
    events = [
        Event(
            names.FAILOVER_EVENT,
            clock(one.at),
            {names.AFTER_TOKENS: one.after_tokens, names.FAILOVER_S: one.took_s},
        )
        for one in record.failovers
    ]
    name, common = _of_request(
        record.method, record.route, record.tenant, record.key_id, record.model, record.outcome, record.stream
    )
    return Span(
        ids.trace_id,
        ids.span_id,
        ids.parent_id,
        name,
        Kind.SERVER,
        clock(record.started),
        clock(ended_at),
        known,
        events,
        error="" if failed is not None and record.is_servers_fault else None,
        remote_parent=ids.parent_id != 0,
        common=common,
    )


@lru_cache(maxsize=4096)
def _of_request(
    method: str,
    route: str,
    tenant: str | None,
    key_id: str | None,
    model: str | None,
    outcome: str | None,
    stream: bool,
) -> tuple[str, bytes]:
    """Returns the span's name, and what many requests have in common."""
    method = method if method in _KNOWN_METHODS else "_OTHER"
    common: list[tuple[str, Value]] = [(names.HTTP_METHOD, method), (names.URL_SCHEME, "http")]
    path = None if route in _NO_API else f"/v1/{route}"
    if path is not None:
        common.append((names.HTTP_ROUTE, path))
    for name, value in ((names.TENANT, tenant), (names.KEY_ID, key_id), (names.OUTCOME, outcome)):
        if value is not None:
            common.append((name, value))
    if model is not None:
        common += [(names.REQUEST_MODEL, model), (names.STREAM, stream)]
    return (method if path is None else f"{method} {path}"), encoding.attributes(dict(common))


def _failure(record: RequestRecord) -> str | None:
    if record.error is not None:
        return _error_type(record, record.error)
    return str(record.status) if record.status is not None and record.status >= 400 else None


def _error_type(record: RequestRecord, error: GatewayError) -> str:
    """Returns a code of ours: that of an engine's refusal may hold any text."""
    if error.code is None or (record.attempts and isinstance(error, InvalidRequest) and error.code not in _OUR_CODES):
        return error.type
    return error.code


def _admission(record: RequestRecord, ids: TraceIds, asked: tuple[float, float], clock: Clock) -> Span:
    known: dict[str, Value] = {}
    if record.redis_s is not None:
        known[names.REDIS_S] = record.redis_s
    if record.outcome is None and record.error is not None:  # an outcome has whoever was admitted
        known[names.ERROR_TYPE] = _error_type(record, record.error)
    return _inner(ids, "admission", clock(asked[0]), clock(asked[1]), known)


def _attempt(
    record: RequestRecord,
    ids: TraceIds,
    attempt: AttemptRecord,
    number: int,
    request_ended_at: float,
    clock: Clock,
    *,
    last: bool,
) -> Span:
    known: dict[str, Value] = {names.ATTEMPT: number}
    if attempt.first_token_at is not None:
        known[names.TIME_TO_FIRST_CHUNK] = attempt.first_token_at - attempt.began_at
    if last:  # the request's tokens stand on one span alone, because backends add up what they find
        known[names.INPUT_TOKENS] = record.prompt_tokens
        known[names.OUTPUT_TOKENS] = record.completion_tokens
        if record.cached_tokens:
            known[names.CACHED_TOKENS] = record.cached_tokens
        if record.finish_reasons:
            known[names.FINISH_REASONS] = [
                reason if isinstance(reason, str) and reason in _KNOWN_REASONS else "other"
                for reason in record.finish_reasons
            ]
    name, common = _of_attempt(record.route, record.model or "", attempt.upstream, attempt.provider, attempt.end)
    return Span(
        ids.trace_id,
        attempt.span_id,
        ids.span_id,
        name,
        Kind.CLIENT,
        clock(attempt.began_at),
        clock(request_ended_at if attempt.ended_at is None else attempt.ended_at),
        known,
        error=None if attempt.end in _SUCCESSES else "",
        common=common,
    )


@lru_cache(maxsize=4096)
def _of_attempt(route: str, model: str, upstream: str, provider: str, end: str) -> tuple[str, bytes]:
    operation = OPERATIONS.get(route, route)
    address = urlsplit(upstream)
    common: list[tuple[str, Value]] = [
        (names.OPERATION, operation),
        (names.PROVIDER, provider),
        (names.REQUEST_MODEL, model),
        (names.SERVER_ADDRESS, address.hostname or ""),
        (names.SERVER_PORT, address.port or (443 if address.scheme == "https" else 80)),
        (names.ATTEMPT_END, end),
    ]
    if end not in _SUCCESSES:
        common.append((names.ERROR_TYPE, end))
    return f"{operation} {model}", encoding.attributes(dict(common))


def _inner(ids: TraceIds, name: str, start_ns: int, end_ns: int, known: dict[str, Value]) -> Span:
    return Span(ids.trace_id, new_span_id(), ids.span_id, name, Kind.INTERNAL, start_ns, end_ns, known)
