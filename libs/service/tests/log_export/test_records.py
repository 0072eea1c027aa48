"""A line of the log as OTLP's message, read back with OpenTelemetry's own classes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import pytest
from cloudach_service import logs
from cloudach_service.log_export import encoding
from cloudach_service.log_export.handler import LogExport
from hypothesis import given
from hypothesis import strategies as some
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

_TEXT = some.text(max_size=40)
_PLAIN = some.booleans() | some.integers(-(2**63), 2**63 - 1) | some.floats(allow_nan=False) | _TEXT
_VALUES = some.recursive(
    _PLAIN, lambda inner: some.lists(inner, max_size=4) | some.dictionaries(_TEXT, inner, max_size=4), max_leaves=12
)


def python(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [python(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {one.key: python(one.value) for one in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def read(written: bytes) -> tuple[LogRecord, dict[str, Any]]:
    record = LogRecord.FromString(written)
    return record, {one.key: python(one.value) for one in record.attributes}


@given(some.integers(0, 2**63), _TEXT, some.dictionaries(_TEXT, _VALUES, max_size=6))
def test_what_is_written_can_be_read(created_ns: int, event: str, fields: dict[str, Any]) -> None:
    record, attributes = read(encoding.record(created_ns, logging.INFO, event, fields))
    assert (record.time_unix_nano, record.observed_time_unix_nano) == (created_ns, created_ns)
    assert (record.body.string_value, record.severity_text, record.severity_number) == (event, "INFO", 9)
    assert attributes == fields
    assert (record.trace_id, record.span_id) == (b"", b"")


@pytest.mark.parametrize(
    ("level", "number"), [("DEBUG", 5), ("INFO", 9), ("WARNING", 13), ("ERROR", 17), ("CRITICAL", 21)]
)
def test_severities(level: str, number: int) -> None:
    record, _ = read(encoding.record(1, logging.getLevelNamesMapping()[level], "it", {}))
    assert (record.severity_text, record.severity_number) == (level, number)


def test_ids_of_a_trace_are_the_records_own() -> None:
    record, attributes = read(encoding.record(1, 20, "request", {"trace_id": TRACE, "span_id": SPAN, "status": 200}))
    assert (record.trace_id.hex(), record.span_id.hex(), attributes) == (TRACE, SPAN, {"status": 200})


@pytest.mark.parametrize("fields", [{"trace_id": TRACE}, {"trace_id": TRACE, "span_id": "x"}, {"span_id": SPAN}])
def test_what_is_no_id_stays_a_field(fields: dict[str, str]) -> None:
    record, attributes = read(encoding.record(1, 20, "request", fields))
    assert (record.trace_id, record.span_id, attributes) == (b"", b"", fields)


def test_values_that_otlp_has_no_type_for() -> None:
    _, attributes = read(encoding.record(1, 20, "it", {"none": None, "day": date(2026, 1, 2), "large": 2**80}))
    assert attributes == {"day": "2026-01-02", "large": str(2**80)}


class Queue:
    def __init__(self, thread: int | None = None) -> None:
        self.thread = thread
        self.written: list[bytes] = []

    def put(self, write: Callable[[], Sequence[bytes]]) -> None:
        self.written += write()


@pytest.fixture
def root() -> Any:
    """The root logger as it was, once a test has configured it."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield root
    logs._handler = None
    root.handlers[:] = before
    root.setLevel(level)


def test_both_ways_to_log_reach_the_queue_and_stderr(root: Any, capsys: pytest.CaptureFixture[str]) -> None:
    queue, log = Queue(), logging.getLogger("tests.export")
    logs.configure("tests", level="info")
    with logs.heard_by(LogExport(queue)):
        logs.event(log, logging.INFO, "request", {"status": 200})
        log.warning("it is %s", "late", extra={"by_s": 2.5})
        log.debug("not at this level")
        logs.event(log, logging.DEBUG, "not at this level", {})
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("unhandled")
    log.warning("after the end")
    records = [read(written) for written in queue.written]
    assert [record.body.string_value for record, _ in records] == ["request", "it is late", "unhandled"]
    assert [attributes for _, attributes in records[:2]] == [{"status": 200}, {"by_s": 2.5}]
    assert "ValueError: bad" in records[2][1]["exception"]
    assert capsys.readouterr().err.count("\n") == 4


def test_what_the_exporting_thread_logs_is_left_out(root: Any) -> None:
    queue = Queue(threading.get_ident())
    logs.configure("tests", level="debug")
    with logs.heard_by(LogExport(queue)):
        logging.getLogger("urllib3").debug("POST /v1/logs")
        logging.getLogger("cloudach.logs").warning("the receiver of logs does not take them")
        thread = threading.Thread(target=logging.getLogger("tests").info, args=["from elsewhere"])
        thread.start()
        thread.join()
    assert [read(written)[0].body.string_value for written in queue.written] == ["from elsewhere"]
