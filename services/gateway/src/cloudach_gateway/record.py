"""Keeps what is known of one request while it is served. Its log line and its metrics are made from that."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cloudach_service.traces import w3c

from .errors import GatewayError, LimitState, without_frames

SCOPE_KEY = "cloudach.record"

OPERATIONS = {"chat/completions": "chat", "completions": "text_completion", "embeddings": "embeddings"}
"""OpenTelemetry's names of the routes' operations."""

Header = tuple[bytes, bytes]
"""A header's name, in small letters, and its value."""


@dataclass(slots=True)
class AttemptRecord:
    """One try at one engine. Its fields are filled while it runs. Times are seconds of `time.perf_counter`.

    provider: the dialect of the engine. span_id: 0 where the request has no trace. headers: those of the request to the
    engine, beside what HTTP and the engine's key need. first_token_at: when the engine's first choice or its
    whole answer came. end: "" while the attempt runs, then the `Cause` of its end.
    """

    upstream: str
    headers: list[Header]
    provider: str = ""
    span_id: int = 0
    began_at: float = field(default_factory=time.perf_counter)
    first_token_at: float | None = None
    ended_at: float | None = None
    end: str = ""

    def first_token_came(self) -> None:
        self.first_token_at = time.perf_counter()

    def ended(self, end: str) -> None:
        self.ended_at, self.end = time.perf_counter(), end

    def log_fields(self) -> dict[str, Any]:
        """Returns the attempt's entry in the log line of its request. Durations are milliseconds."""
        fields: dict[str, Any] = {"upstream": self.upstream, "end": self.end}
        for name, at in (("first_token_ms", self.first_token_at), ("duration_ms", self.ended_at)):
            if at is not None:
                fields[name] = round((at - self.began_at) * 1000, 2)
        return fields


@dataclass(frozen=True, slots=True)
class FailedOver:
    """An engine broke off and another engine went on. took_s: from the break to the other's first event.

    at: when that event came, in seconds of `time.perf_counter`.
    """

    cause: str
    after_tokens: int
    took_s: float
    at: float


class TraceIds(NamedTuple):
    """The request's own span. parent_id: the client's span, 0 without one. sampled: as decided at the beginning."""

    trace_id: int
    span_id: int
    parent_id: int
    sampled: bool


class Wait(NamedTuple):
    """A turn at which the request had to wait. Times are seconds of `time.perf_counter`.

    kind: what it waited for: `wake`, `engine`, `quarantine`, `another_engine`, `pause`.
    """

    kind: str
    began_at: float
    ended_at: float


@dataclass(slots=True)
class RequestRecord:
    """Times are seconds of `time.perf_counter`."""

    method: str
    path: str
    id: str = field(default_factory=lambda: f"req_{os.urandom(16).hex()}")
    started: float = field(default_factory=time.perf_counter)
    route: str = "other"
    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    stream: bool = False
    status: int | None = None
    outcome: str | None = None  # finished | cancelled | failed, of generations
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    ttft_s: float | None = None
    heartbeats: int = 0
    limits: LimitState | None = None
    error: GatewayError | None = None
    completed: bool = False
    attempts: list[AttemptRecord] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)  # their causes
    failovers: list[FailedOver] = field(default_factory=list)
    slow_path: set[str] = field(default_factory=set)  # why chunks of the answer had to be parsed
    finish_reasons: tuple[str, ...] = ()  # as the engine gave them, one for each choice that ended
    trace: TraceIds | None = None
    admission: tuple[float, float] | None = None  # from when to when it was asked for admission
    redis_s: float | None = None  # the part of that which was Redis' round trip
    waits: list[Wait] = field(default_factory=list)

    @property
    def age_s(self) -> float:
        return time.perf_counter() - self.started

    @property
    def is_servers_fault(self) -> bool:
        """True for a 5xx, and for an answer that broke after it had begun well. The rest is its client's doing."""
        if self.status is None or self.status < 400:
            return self.outcome != "cancelled" and (self.error is not None or self.outcome == "failed")
        return self.status >= 500

    def count(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> None:
        self.prompt_tokens, self.completion_tokens, self.cached_tokens = prompt_tokens, completion_tokens, cached_tokens

    def first_token(self) -> None:
        self.ttft_s = time.perf_counter() - self.started

    def heartbeat(self) -> None:
        self.heartbeats += 1

    def left_fast_path(self, reason: str) -> None:
        self.slow_path.add(reason)

    def complete(self) -> None:
        self.completed = True

    def end_with(self, error: GatewayError) -> None:
        """Notes what went wrong, for the log and the metrics."""
        self.error = without_frames(error)

    def attempt_began(self, attempt: AttemptRecord) -> None:
        self.attempts.append(attempt)
        if self.trace is not None:
            attempt.span_id = w3c.new_span_id()
            parent = w3c.written(self.trace.trace_id, attempt.span_id, sampled=self.trace.sampled)
            attempt.headers.append((b"traceparent", parent))

    def waited(self, kind: str, began_at: float) -> None:
        self.waits.append(Wait(kind, began_at, time.perf_counter()))

    def retried(self, cause: str) -> None:
        self.retries.append(cause)

    def failed_over(self, cause: str, *, after_tokens: int, took_s: float) -> None:
        self.failovers.append(FailedOver(cause, after_tokens, took_s, time.perf_counter()))

    def failover_report(self) -> list[dict[str, Any]]:
        return [{"after_tokens": one.after_tokens, "took_ms": round(one.took_s * 1000, 1)} for one in self.failovers]
