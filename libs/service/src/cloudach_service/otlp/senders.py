"""Sends messages to an OTLP receiver. The SDK's exporters do that, with their variables, their TLS and their retries.

Only their encoding is passed by, because ours is cheaper. They are imported when they are needed: gRPC is heavy.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

from .address import Signal

_MOST_WORDS = 300  # characters
_THEIR_LOGS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
)


class Sender(Protocol):
    """Sends from one thread. It may block for OTEL_EXPORTER_OTLP_TIMEOUT, 10 s by default."""

    def send(self, message: bytes) -> str | None:
        """Sends the signal's export request. Returns None if it has arrived, otherwise why not."""

    def close(self) -> None:
        """Makes a `send` that tries again give up."""


class _LastWords(logging.Filter):
    """Keeps what an exporter logs of a batch that fails out of the log, where its user says it once."""

    def __init__(self) -> None:
        super().__init__()
        self._of_thread = threading.local()

    @property
    def said(self) -> str:
        """The last line of this thread, which sends one signal."""
        return getattr(self._of_thread, "words", "no answer")

    def filter(self, record: logging.LogRecord) -> bool:
        self._of_thread.words = record.getMessage()[:_MOST_WORDS]
        return False


_last_words = _LastWords()


def sender(signal: Signal, endpoint: str, protocol: str, *, timeout_s: float | None = None) -> Sender:
    """Returns a sender that has not connected yet.

    endpoint: the whole URL. timeout_s: None where the exporter reads it from a variable.
    """
    for name in _THEIR_LOGS:  # before they are imported, because the first filter sees everything
        logging.getLogger(name).addFilter(_last_words)
    return (_grpc if protocol == "grpc" else _http)(signal, endpoint, timeout_s)


def _http(signal: Signal, endpoint: str, timeout_s: float | None) -> Sender:
    exporter: Any
    if signal == "traces":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as exporter
    elif signal == "metrics":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as exporter
    else:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as exporter

    class Http(exporter):  # type: ignore[misc]
        def send(self, message: bytes) -> str | None:
            sent = self._client.export(message)
            return None if sent.success else str(sent.reason or sent.error or _last_words.said)[:_MOST_WORDS]

        def close(self) -> None:
            self.shutdown()

    return Http(endpoint, timeout=timeout_s)


def _grpc(signal: Signal, endpoint: str, timeout_s: float | None) -> Sender:
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # it kills a forked child now and then before its exec
    exporter: Any
    parse: Callable[[bytes], Any]
    if signal == "traces":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as exporter
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        parse = ExportTraceServiceRequest.FromString
    elif signal == "metrics":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as exporter
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        parse = ExportMetricsServiceRequest.FromString
    else:
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as exporter
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        parse = ExportLogsServiceRequest.FromString

    class Grpc(exporter):  # type: ignore[misc]
        def send(self, message: bytes) -> str | None:
            return None if self._export(message) is self._result.SUCCESS else _last_words.said

        def close(self) -> None:
            self.shutdown()

        def _translate_data(self, data: bytes) -> Any:
            return parse(data)

        def _count_data(self, data: bytes) -> int:
            return 1

    return Grpc(endpoint, timeout=timeout_s)
