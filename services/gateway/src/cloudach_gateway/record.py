"""Keeps what is known of one request while it is served. Its log line and its metrics are made from that."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from .errors import GatewayError, LimitState, without_frames

SCOPE_KEY = "cloudach.record"

Header = tuple[bytes, bytes]
"""A header's name, in small letters, and its value."""


@dataclass(slots=True)
class AttemptRecord:
    """One try at one engine. Its fields are filled while it runs. Times are the event loop's, in seconds.

    headers: those of the request to the engine, beside what HTTP and the engine's key need. first_token_at: when the
    engine's first choice came, or its whole answer. end: "" while the attempt runs, then the `Cause` of its end.
    """

    upstream: str
    headers: list[Header]
    began_at: float
    first_token_at: float | None = None
    ended_at: float | None = None
    end: str = ""

    def log_fields(self) -> dict[str, Any]:
        """Returns the attempt's entry in the log line of its request. Durations are milliseconds."""
        fields: dict[str, Any] = {"upstream": self.upstream, "end": self.end}
        for name, at in (("first_token_ms", self.first_token_at), ("duration_ms", self.ended_at)):
            if at is not None:
                fields[name] = round((at - self.began_at) * 1000, 2)
        return fields


@dataclass(frozen=True, slots=True)
class FailedOver:
    """An engine broke off and another engine went on. took_s: from the break to the other's first event."""

    cause: str
    after_tokens: int
    took_s: float


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

    @property
    def age_s(self) -> float:
        return time.perf_counter() - self.started

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

    def retried(self, cause: str) -> None:
        self.retries.append(cause)

    def failed_over(self, cause: str, *, after_tokens: int, took_s: float) -> None:
        self.failovers.append(FailedOver(cause, after_tokens, took_s))

    def failover_report(self) -> list[dict[str, Any]]:
        return [{"after_tokens": one.after_tokens, "took_ms": round(one.took_s * 1000, 1)} for one in self.failovers]
