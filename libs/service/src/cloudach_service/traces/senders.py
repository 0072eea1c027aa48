"""Sends messages to an OTLP receiver. The SDK's exporters do that, with their variables, their TLS and their retries.

Only their encoding is passed by, because ours is cheaper. They are imported when they are needed: gRPC is heavy.
"""

from __future__ import annotations

import logging
from typing import Protocol

from .settings import Exporting

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


def sender(exporting: Exporting) -> Sender:
    """Returns a sender that has not connected yet. Raises ValueError for variables with bad values."""
    for name in _THEIR_LOGS:  # they log each batch that fails; the queue says it once
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if exporting.protocol == "grpc":
        return _grpc(exporting.endpoint)
    return _http(exporting.endpoint)


def _http(endpoint: str | None) -> Sender:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    class Http(OTLPSpanExporter):
        def send(self, message: bytes) -> str | None:
            sent = self._client.export(message)
            return None if sent.success else str(sent.reason or sent.error or "no answer")[:200]

        def close(self) -> None:
            self.shutdown()  # type: ignore[no-untyped-call]

    return Http(endpoint)


def _grpc(endpoint: str | None) -> Sender:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.sdk.trace.export import SpanExportResult

    class Grpc(OTLPSpanExporter):
        def send(self, message: bytes) -> str | None:
            sent = self._export(message)  # type: ignore[arg-type]
            return None if sent is SpanExportResult.SUCCESS else "the call failed"

        def close(self) -> None:
            self.shutdown()

        def _translate_data(self, data: bytes) -> ExportTraceServiceRequest:  # type: ignore[override]
            message: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(data)
            return message

        def _count_data(self, data: bytes) -> int:  # type: ignore[override]
            return 1

    return Grpc(endpoint)
