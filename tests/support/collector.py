"""A receiver of OTLP in the test's own process, over HTTP or gRPC, which may also be slow, full or silent."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from .waiting import until

ANSWERS: dict[str, Any] = {
    "traces": ExportTraceServiceResponse,
    "metrics": ExportMetricsServiceResponse,
    "logs": ExportLogsServiceResponse,
}

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}


@dataclass(frozen=True)
class Received:
    """One span. Ids are hexadecimal; `parent` is '' for the first one. `process` is its `service.instance.id`."""

    service: str
    process: str
    trace: str
    span: str
    parent: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    failed: bool


@dataclass(frozen=True)
class LogRecord:
    """One log record. Ids are hexadecimal, and '' where it has none. `process` is its `service.instance.id`."""

    process: str
    event: str
    severity: str
    number: int
    time_ns: int
    trace: str
    span: str
    attributes: dict[str, Any]


class Collector:
    """Use it in `with`. `bytes` are the messages with traces.

    `mode` may be changed at any time: `takes`, `refuses` (503), `hangs` (until it is closed)."""

    def __init__(self, protocol: str = "http/protobuf", mode: str = "takes") -> None:
        self.mode = mode
        self.calls = 0
        self.bytes: list[bytes] = []
        self.of_metrics: list[bytes] = []
        self.of_logs: list[bytes] = []
        self.called = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        if protocol == "grpc":
            self._grpc = grpc.server(ThreadPoolExecutor(8))
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Service(self, "traces"), self._grpc)  # type: ignore[no-untyped-call]
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Service(self, "metrics"), self._grpc)  # type: ignore[no-untyped-call]
            logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Service(self, "logs"), self._grpc)  # type: ignore[no-untyped-call]
            port = self._grpc.add_insecure_port("127.0.0.1:0")
            self._stop = lambda: self._grpc.stop(0)
            self._grpc.start()
        else:
            server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"collector": self}))
            port = server.server_port

            def stop() -> None:
                server.shutdown()
                server.server_close()

            self._stop = stop
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{port}"

    def took(self, message: bytes, signal: str = "traces") -> bool:
        """Returns False where the sender is told to come back later."""
        with self._lock:
            self.calls += 1
        self.called.set()
        if self.mode == "hangs":
            self._closed.wait()
        if self.mode == "refuses":
            return False
        with self._lock:
            {"traces": self.bytes, "metrics": self.of_metrics, "logs": self.of_logs}[signal].append(message)
        return True

    @property
    def metrics(self) -> list[ExportMetricsServiceRequest]:
        """The messages with metrics, in the order in which they came."""
        with self._lock:
            return [ExportMetricsServiceRequest.FromString(message) for message in self.of_metrics]

    @property
    def records(self) -> list[LogRecord]:
        with self._lock:
            messages = [ExportLogsServiceRequest.FromString(message) for message in self.of_logs]
        return [record for message in messages for record in _records(message)]

    @property
    def spans(self) -> list[Received]:
        with self._lock:
            messages = [ExportTraceServiceRequest.FromString(message) for message in self.bytes]
        return [span for message in messages for span in _spans(message)]

    def trace(self, trace_id: str, *, spans: int) -> list[Received]:
        """Returns the spans of a trace once there are so many of them, in the order of their beginnings."""

        def received() -> list[Received]:
            return sorted((one for one in self.spans if one.trace == trace_id), key=lambda one: one.start_ns)

        until(lambda: len(received()) >= spans, f"{spans} spans of the trace {trace_id}")
        found = received()
        assert len(found) == spans, [(one.service, one.name) for one in found]
        return found

    def close(self) -> None:
        self._closed.set()
        self._stop()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spans(message: ExportTraceServiceRequest) -> list[Received]:
    found = []
    for of_resource in message.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for in_scope in of_resource.scope_spans:
            found += [
                Received(
                    str(resource.get("service.name", "")),
                    str(resource.get("service.instance.id", "")),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    KINDS[span.kind],
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _attributes(span.attributes),
                    [(event.name, _attributes(event.attributes)) for event in span.events],
                    span.status.code == 2,
                )
                for span in in_scope.spans
            ]
    return found


def _records(message: ExportLogsServiceRequest) -> list[LogRecord]:
    return [
        LogRecord(
            str(_attributes(of_resource.resource.attributes).get("service.instance.id", "")),
            record.body.string_value,
            record.severity_text,
            record.severity_number,
            record.time_unix_nano,
            record.trace_id.hex(),
            record.span_id.hex(),
            _attributes(record.attributes),
        )
        for of_resource in message.resource_logs
        for in_scope in of_resource.scope_logs
        for record in in_scope.log_records
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _python(pair.value) for pair in pairs}


def _python(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_python(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a sender that gives up has closed its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        signal = self.path.removeprefix("/v1/")
        good = signal in ANSWERS and self.headers["content-type"] == "application/x-protobuf"
        status = 400 if not good else 200 if self.collector.took(body, signal) else 503
        answer = ANSWERS[signal]().SerializeToString() if status == 200 else b""
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Service:
    """Serves one signal: the services differ in their messages alone."""

    def __init__(self, collector: Collector, signal: str) -> None:
        self._collector = collector
        self._signal = signal

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self._collector.took(request.SerializeToString(), self._signal):
            context.abort(grpc.StatusCode.UNAVAILABLE, "come back later")
        return ANSWERS[self._signal]()
