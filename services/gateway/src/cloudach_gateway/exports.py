"""Starts what sends the gateway's metrics and its log by OTLP, beside what Prometheus scrapes and what is on stderr."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import time
from collections.abc import Iterator

from cloudach_service import logs
from cloudach_service import metrics as scraped
from cloudach_service.log_export import settings as log_settings
from cloudach_service.log_export.handler import LogExport
from cloudach_service.metric_export import settings as metric_settings
from cloudach_service.metric_export.export import MetricExport
from cloudach_service.otlp.queue import ExportQueue
from cloudach_service.otlp.resource import of_service
from cloudach_service.otlp.senders import sender

from . import metrics
from .settings import Telemetry

_SERVICE = "cloudach-gateway"
_LAST_S = 2.0


def check(telemetry: Telemetry) -> None:
    """Raises ConfigError if a variable of OpenTelemetry has a bad value."""
    metric_settings.exporting(telemetry.metrics, os.environ)
    log_settings.exporting(telemetry.logs, os.environ)


@contextlib.contextmanager
def of_metrics(telemetry: Telemetry, started_ns: int) -> Iterator[None]:
    """Exports the metrics of all processes of the gateway, from the first one. They are sent once more at the end.

    started_ns: when the gateway began to count, in nanoseconds since 1970.
    """
    exporting = metric_settings.exporting(telemetry.metrics, os.environ)
    if exporting is None:
        yield
        return
    from cloudach_service.metric_export.message import Times, request  # protobuf is heavy, and most do without

    to, version = exporting.to, importlib.metadata.version(_SERVICE)
    resource, registry = of_service(_SERVICE, version), scraped.registry()

    def message() -> bytes:
        times = Times(started_ns, time.time_ns())
        return request(registry.collect(), resource, (_SERVICE, version), times, metrics.OTEL_NAMES)

    sends = sender("metrics", to.endpoint, to.protocol, timeout_s=to.timeout_s)
    export = MetricExport(message, sends, _MetricCounts(), interval_s=exporting.interval_s)
    try:
        yield
    finally:
        export.close(_LAST_S)


@contextlib.contextmanager
def of_logs(telemetry: Telemetry) -> Iterator[None]:
    """Exports the log of this process. What waits is sent at the end."""
    exporting = log_settings.exporting(telemetry.logs, os.environ)
    if exporting is None:
        yield
        return
    to, version = exporting.to, importlib.metadata.version(_SERVICE)
    queue = ExportQueue(
        "logs",
        sender("logs", to.endpoint, to.protocol, timeout_s=to.timeout_s),
        of_service(_SERVICE, version),
        (_SERVICE, version),
        _LogCounts(),
        most=exporting.queue,
        delay_s=exporting.delay_s,
        parts_at_once=exporting.records_at_once,
    )
    try:
        with logs.heard_by(LogExport(queue)):
            yield
    finally:
        queue.close(_LAST_S)


class _MetricCounts:
    def exported(self, result: str) -> None:
        metrics.METRIC_EXPORTS.labels(result).inc()


class _LogCounts:
    def exported(self, records: int) -> None:
        metrics.LOGS_EXPORTED.inc(records)

    def dropped(self, reason: str, records: int) -> None:
        metrics.LOGS_DROPPED.labels(reason).inc(records)
