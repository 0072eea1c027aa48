"""Writes spans as the protobuf message that OTLP takes, Span of opentelemetry-proto 1. Pure.

Tests read every kind of span back with the official message classes.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from ..otlp.protobuf import attributes as written
from ..otlp.protobuf import field, text
from .spans import Attributes, Event, Span

_FIXED64 = struct.Struct("<Q").pack
_IDS = struct.Struct(">2s16s2sQ").pack  # ids are big-endian, and numbers little-endian
_TIMES = struct.Struct("<sQsQ").pack
_OWN_PARENT, _REMOTE_PARENT = b"\x85\x01\x01\x01\x00\x00", b"\x85\x01\x01\x03\x00\x00"  # both are sampled
_ERROR = 2


def span(one: Span) -> bytes:
    """Returns one Span message."""
    trace_id, span_id, parent_id, name, kind, start_ns, end_ns, known, events, error, remote_parent, common = one
    parts = [
        _IDS(b"\x0a\x10", trace_id.to_bytes(16), b"\x12\x08", span_id),
        _TIMES(b"\x39", start_ns, b"\x41", end_ns),
        b"\x22\x08" + parent_id.to_bytes(8) if parent_id else b"",
        _name_and_kind(name, kind),
        common,
        *written(b"\x4a", known),
    ]
    if events:
        parts += [field(b"\x5a", _event(event)) for event in events]
    if error is not None:
        parts.append(field(b"\x7a", text(b"\x12", error) + b"\x18%c" % _ERROR))
    parts.append(_REMOTE_PARENT if remote_parent else _OWN_PARENT)
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _name_and_kind(name: str, kind: int) -> bytes:
    return text(b"\x2a", name) + b"\x30%c" % kind


def attributes(of_span: Attributes) -> bytes:
    """Returns a span's attributes in the form of `Span.common`."""
    return b"".join(written(b"\x4a", of_span))


def _event(event: Event) -> bytes:
    head = b"\x09" + _FIXED64(event.at_ns) + text(b"\x12", event.name)
    return head + b"".join(written(b"\x1a", event.attributes))
