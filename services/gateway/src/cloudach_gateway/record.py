"""What is known of one request while it is served: the source of its log line and its metrics."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

from .errors import GatewayError, LimitState

SCOPE_KEY = "cloudach.record"


@dataclass(slots=True)
class RequestRecord:
    """Times are seconds of `time.perf_counter`."""

    method: str
    path: str
    id: str = field(default_factory=lambda: f"req_{uuid.uuid4().hex}")
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
    ttft_s: float | None = None
    heartbeats: int = 0
    limits: LimitState | None = None
    error: GatewayError | None = None
    completed: bool = False

    def first_token(self) -> None:
        self.ttft_s = time.perf_counter() - self.started

    def heartbeat(self) -> None:
        self.heartbeats += 1

    def complete(self) -> None:
        self.completed = True
