"""Exports the simulator's spans, as a setting or OpenTelemetry's variables say."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from cloudach_service.traces.sampling import Sampling
from cloudach_service.traces.settings import Traces as Settings
from cloudach_service.traces.settings import exporting
from cloudach_service.traces.spans import Span

_SERVICE = "cloudach-engine"
"""Real engines have the same name: `cloudach_inference.replica.traces`."""
_LAST_TRACES_S = 3.0


class Queue(Protocol):
    """`cloudach_service.traces.queue` has it."""

    def put(self, trace: Callable[[], Sequence[Span]]) -> None:
        """Takes what makes a trace's spans. Never waits and never raises."""

    def close(self, timeout_s: float) -> None:
        """Sends what waits, for at most so long."""


class Traces(NamedTuple):
    """Where spans go, and which requests without a parent have one."""

    queue: Queue
    sampling: Sampling

    def close(self) -> None:
        self.queue.close(_LAST_TRACES_S)


class _Uncounted:
    """The simulator has no metric of traces; the queue logs when they are not taken."""

    def exported(self, traces: int) -> None:
        pass

    def dropped(self, reason: str, traces: int) -> None:
        pass


def start(environ: Mapping[str, str], settings: Settings | None = None) -> Traces | None:
    """Starts the thread that exports, in the process that serves. Returns None where nothing is to be exported.

    Raises ConfigError for a variable with a bad value.
    """
    found = exporting(settings or Settings(), environ)
    if found is None:
        return None
    from cloudach_service.otlp.resource import of_service
    from cloudach_service.traces.queue import TraceQueue  # OpenTelemetry is heavy, and most simulators do without
    from cloudach_service.traces.senders import sender

    version = importlib.metadata.version("cloudach-simulator")
    queue = TraceQueue(
        sender(found),
        of_service(_SERVICE, version),
        ("cloudach-simulator", version),
        _Uncounted(),
        most=found.queue,
        delay_s=found.delay_s,
        spans_at_once=found.spans_at_once,
    )
    return Traces(queue, found.sampling)
