"""Sends messages to an OTLP receiver. The SDK's exporters do that, with their variables, their TLS and their retries.

Only their encoding is passed by, because ours is cheaper. They are imported when they are needed: gRPC is heavy.
"""

from __future__ import annotations

import logging
from typing import Protocol

from .settings import Exporting

_MOST_WORDS = 300  # characters
_THEIR_LOGS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
)


class Sender(Protocol):
    """Sends from one thread. It may block for OTEL_EXPORTER_OTLP_TIMEOUT, 10 s by default."""

    def send(self, message: bytes) -> str | None:
        """Sends an ExportTraceServiceRequest. Returns None if it has arrived, otherwise why not."""

    def close(self) -> None:
        """Makes a `send` that tries again give up."""


class _LastWords(logging.Filter):
    """Keeps what an exporter logs of a batch that fails out of the log, where the queue says it once."""

    def __init__(self) -> None:
        super().__init__()
        self.said = "no answer"

    def filter(self, record: logging.LogRecord) -> bool:
        self.said = record.getMessage()[:_MOST_WORDS]
        return False


_last_words = _LastWords()


def sender(exporting: Exporting) -> Sender:
    """Returns a sender that has not connected yet."""
    for name in _THEIR_LOGS:  # before they are imported, because the first filter sees everything
        logging.getLogger(name).addFilter(_last_words)
    return _grpc(exporting.endpoint) if exporting.protocol == "grpc" else _http(exporting.endpoint)


def _http(endpoint: str) -> Sender:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    class Http(OTLPSpanExporter):
        def send(self, message: bytes) -> str | None:
            sent = self._client.export(message)
            return None if sent.success else str(sent.reason or sent.error or _last_words.said)[:_MOST_WORDS]

        def close(self) -> None:
            self.shutdown()  # type: ignore[no-untyped-call]

    return Http(endpoint)


def _grpc(endpoint: str) -> Sender:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.sdk.trace.export import SpanExportResult

    class Grpc(OTLPSpanExporter):
        def send(self, message: bytes) -> str | None:
            sent = self._export(message)  # type: ignore[arg-type]
            return None if sent is SpanExportResult.SUCCESS else _last_words.said

        def close(self) -> None:
            self.shutdown()

        def _translate_data(self, data: bytes) -> ExportTraceServiceRequest:  # type: ignore[override]
            message: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(data)
            return message

        def _count_data(self, data: bytes) -> int:  # type: ignore[override]
            return 1

    return Grpc(endpoint)
