"""Puts together what exports the traces of one process."""

from __future__ import annotations

import importlib.metadata
from typing import NamedTuple

from cloudach_service.otlp.resource import of_service
from cloudach_service.traces.queue import TraceQueue
from cloudach_service.traces.senders import sender
from cloudach_service.traces.settings import Exporting, Traces

from .. import metrics
from .tracer import Keeping, Tracer

_SERVICE = "cloudach-gateway"


class Tracing(NamedTuple):
    tracer: Tracer
    queue: TraceQueue


def start(settings: Traces, exporting: Exporting) -> Tracing:
    """Starts the thread that exports. Call it in the process that serves, after any fork."""
    version = importlib.metadata.version(_SERVICE)
    queue = TraceQueue(
        sender(exporting),
        of_service(_SERVICE, version),
        (_SERVICE, version),
        _Counts(),
        most=exporting.queue,
        delay_s=exporting.delay_s,
        spans_at_once=exporting.spans_at_once,
    )
    keeping = Keeping(settings.keep_troubled, settings.slow_s)
    return Tracing(Tracer(queue, exporting.sampling, keeping, joins_client=settings.join_client), queue)


class _Counts:
    def exported(self, traces: int) -> None:
        metrics.TRACES_EXPORTED.inc(traces)

    def dropped(self, reason: str, traces: int) -> None:
        metrics.TRACES_DROPPED.labels(reason).inc(traces)
