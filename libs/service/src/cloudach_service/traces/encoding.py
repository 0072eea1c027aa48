"""Writes spans as the protobuf message that OTLP takes: ExportTraceServiceRequest of opentelemetry-proto 1. Pure.

The SDK's own encoder takes five times as long, a third of what a short request costs: docs/adr/0030-traces.md.
Tests read every kind of span back with the official message classes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

from .spans import Attributes, Event, Span, Value

_FIXED64 = struct.Struct("<Q").pack
_DOUBLE = struct.Struct("<d").pack
_IDS = struct.Struct(">2s16s2sQ").pack  # ids are big-endian, and numbers little-endian
_TIMES = struct.Struct("<sQsQ").pack
_OWN_PARENT, _REMOTE_PARENT = b"\x85\x01\x01\x01\x00\x00", b"\x85\x01\x01\x03\x00\x00"  # both are sampled
_INT64 = 2**64 - 1
_ERROR = 2

# A field's first byte is its number * 8 + its wire type: 0 varint, 1 eight bytes, 2 with a length, 5 four bytes.


def request(resource: Attributes, scope: tuple[str, str], spans: Iterable[bytes]) -> bytes:
    """Returns the whole message. scope: name and version of what made the spans. spans: as `span` wrote them."""
    scope_name, scope_version = scope
    in_scope = [_field(b"\x0a", _text(b"\x0a", scope_name) + _text(b"\x12", scope_version))]
    in_scope += [_field(b"\x12", written) for written in spans]
    of_resource = _field(b"\x0a", b"".join(_attributes(b"\x0a", resource)))
    return _field(b"\x0a", of_resource + _field(b"\x12", b"".join(in_scope)))


def span(one: Span) -> bytes:
    """Returns one Span message."""
    trace_id, span_id, parent_id, name, kind, start_ns, end_ns, known, events, error, remote_parent, common = one
    parts = [
        _IDS(b"\x0a\x10", trace_id.to_bytes(16), b"\x12\x08", span_id),
        _TIMES(b"\x39", start_ns, b"\x41", end_ns),
        b"\x22\x08" + parent_id.to_bytes(8) if parent_id else b"",
        _name_and_kind(name, kind),
        common,
        *_attributes(b"\x4a", known),
    ]
    if events:
        parts += [_field(b"\x5a", _event(event)) for event in events]
    if error is not None:
        parts.append(_field(b"\x7a", _text(b"\x12", error) + b"\x18%c" % _ERROR))
    parts.append(_REMOTE_PARENT if remote_parent else _OWN_PARENT)
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _name_and_kind(name: str, kind: int) -> bytes:
    return _text(b"\x2a", name) + b"\x30%c" % kind


def attributes(of_span: Attributes) -> bytes:
    """Returns a span's attributes in the form of `Span.common`."""
    return b"".join(_attributes(b"\x4a", of_span))


def _event(event: Event) -> bytes:
    head = b"\x09" + _FIXED64(event.at_ns) + _text(b"\x12", event.name)
    return head + b"".join(_attributes(b"\x1a", event.attributes))


def _attributes(tag: bytes, named: Attributes) -> list[bytes]:
    return [
        _prefix(tag, key, 9, b"\x21") + _DOUBLE(value)
        if type(value) is float
        else _field(tag, _key(key) + _field(b"\x12", _value(value)))
        for key, value in named.items()
    ]


@lru_cache(maxsize=1024)
def _prefix(tag: bytes, key: str, size: int, kind: bytes) -> bytes:
    """Returns what comes before a value that always has the same size, `kind` included."""
    head = _key(key) + b"\x12%c" % size + kind
    return _field(tag, head + bytes(size - 1))[: 1 - size]


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _text(b"\x0a", value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & _INT64)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE(value)
    return _field(b"\x2a", b"".join(_field(b"\x0a", _value(each)) for each in value))


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return _text(b"\x0a", key)


def _text(tag: bytes, text: str) -> bytes:
    return _field(tag, text.encode("utf-8", "replace"))


def _field(tag: bytes, data: bytes) -> bytes:
    size = len(data)
    return tag + (size.to_bytes(1) if size < 128 else _varint(size)) + data


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
