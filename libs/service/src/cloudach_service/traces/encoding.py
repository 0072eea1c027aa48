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
_HAS_REMOTE, _REMOTE, _SAMPLED = 0x100, 0x200, 0x01
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
    parts = [b"\x0a\x10", one.trace_id.to_bytes(16), b"\x12\x08", one.span_id.to_bytes(8)]
    if one.parent_id:
        parts += (b"\x22\x08", one.parent_id.to_bytes(8))
    parts += (
        _text(b"\x2a", one.name),
        b"\x30%c" % one.kind,
        b"\x39",
        _FIXED64(one.start_ns),
        b"\x41",
        _FIXED64(one.end_ns),
        one.common,
        *_attributes(b"\x4a", one.attributes),
    )
    parts += [_field(b"\x5a", _event(event)) for event in one.events]
    if one.error is not None:
        parts.append(_field(b"\x7a", _text(b"\x12", one.error) + b"\x18%c" % _ERROR))
    flags = _SAMPLED | _HAS_REMOTE | (_REMOTE if one.remote_parent else 0)
    parts += (b"\x85\x01", flags.to_bytes(4, "little"))
    return b"".join(parts)


def attributes(of_span: Attributes) -> bytes:
    """Returns a span's attributes in the form of `Span.common`."""
    return b"".join(_attributes(b"\x4a", of_span))


def _event(event: Event) -> bytes:
    head = b"\x09" + _FIXED64(event.at_ns) + _text(b"\x12", event.name)
    return head + b"".join(_attributes(b"\x1a", event.attributes))


def _attributes(tag: bytes, named: Attributes) -> list[bytes]:
    return [_field(tag, _key(key) + _field(b"\x12", _value(value))) for key, value in named.items()]


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
