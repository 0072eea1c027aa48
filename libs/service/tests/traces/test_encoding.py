"""The official message classes read back whatever our encoder writes."""

from __future__ import annotations

from typing import Any

import pytest
from cloudach_service.otlp import protobuf
from cloudach_service.traces import encoding
from cloudach_service.traces.spans import Event, Kind, Span
from hypothesis import given
from hypothesis import strategies as some
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_TEXTS = some.text(max_size=300)
_VALUES = some.one_of(
    _TEXTS,
    some.booleans(),
    some.integers(-(2**63), 2**63 - 1),
    some.floats(allow_nan=False),
    some.lists(_TEXTS, max_size=3),
)
_ATTRIBUTES = some.dictionaries(some.text(min_size=1, max_size=20), _VALUES, max_size=4)
_TIMES = some.integers(0, 2**63)
_COMMON = {"common a": 1, "common b": True, "common c": "x" * 200}
_SPANS = some.builds(
    Span,
    trace_id=some.integers(1, 2**128 - 1),
    span_id=some.integers(1, 2**64 - 1),
    parent_id=some.integers(0, 2**64 - 1),
    name=_TEXTS,
    kind=some.sampled_from(Kind),
    start_ns=_TIMES,
    end_ns=_TIMES,
    attributes=_ATTRIBUTES,
    events=some.lists(some.builds(Event, name=_TEXTS, at_ns=_TIMES, attributes=_ATTRIBUTES), max_size=2),
    error=some.none() | _TEXTS,
    remote_parent=some.booleans(),
    common=some.just(b"") | some.just(encoding.attributes(_COMMON)),
)


def _python(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_python(each) for each in value.array_value.values]
    return getattr(value, kind)


def _attributes(pairs: Any) -> dict[str, Any]:
    found: list[KeyValue] = list(pairs)
    return {pair.key: _python(pair.value) for pair in found}


def _clean(value: Any) -> Any:
    """Texts from JSON may hold half of a surrogate pair, which no UTF-8 has."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return [_clean(each) for each in value] if isinstance(value, list) else value


def _cleaned(attributes: Any) -> dict[str, Any]:
    return {_clean(name): _clean(value) for name, value in attributes.items()}


@given(some.lists(_SPANS, max_size=4), _ATTRIBUTES)
def test_the_official_classes_read_what_we_write(spans: list[Span], resource: dict[str, Any]) -> None:
    written = protobuf.request(resource, ("scope", "1.0"), [encoding.span(span) for span in spans])
    read = ExportTraceServiceRequest.FromString(written)
    (of_resource,) = read.resource_spans
    assert _attributes(of_resource.resource.attributes) == _cleaned(resource)
    (in_scope,) = of_resource.scope_spans
    assert (in_scope.scope.name, in_scope.scope.version) == ("scope", "1.0")
    assert len(in_scope.spans) == len(spans)
    for found, meant in zip(in_scope.spans, spans, strict=True):
        assert found.trace_id == meant.trace_id.to_bytes(16)
        assert found.span_id == meant.span_id.to_bytes(8)
        assert found.parent_span_id == (meant.parent_id.to_bytes(8) if meant.parent_id else b"")
        assert (found.name, found.kind) == (_clean(meant.name), meant.kind)
        assert (found.start_time_unix_nano, found.end_time_unix_nano) == (meant.start_ns, meant.end_ns)
        assert _attributes(found.attributes) == (_COMMON if meant.common else {}) | _cleaned(meant.attributes)
        assert [(event.name, event.time_unix_nano, _attributes(event.attributes)) for event in found.events] == [
            (_clean(event.name), event.at_ns, _cleaned(event.attributes)) for event in meant.events
        ]
        assert (found.status.code, found.status.message) == (
            (0, "") if meant.error is None else (2, _clean(meant.error))
        )
        assert bool(found.flags & 0x200) == meant.remote_parent
        assert found.flags & 0x101 == 0x101
    assert read.SerializeToString() == written or spans, "no field is written that the classes would leave out"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 100_000])
def test_texts_of_any_length(size: int) -> None:
    one = Span(1, 1, 0, "n" * size, Kind.SERVER, 0, 0, {})
    read = ExportTraceServiceRequest.FromString(protobuf.request({}, ("", ""), [encoding.span(one)]))
    assert len(read.resource_spans[0].scope_spans[0].spans[0].name) == size
