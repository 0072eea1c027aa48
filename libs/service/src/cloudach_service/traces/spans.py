"""Spans as they are exported: each is made once, when what it tells of has ended."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from ..otlp.protobuf import Attributes as Attributes
from ..otlp.protobuf import Value as Value


class Kind(IntEnum):
    """The numbers are those of OTLP."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class Event(NamedTuple):
    name: str
    at_ns: int
    attributes: Attributes


class Span(NamedTuple):
    """Times are nanoseconds since 1970. parent_id is 0 for the first span of a trace.

    error: None where what the span tells of went well; otherwise a short text, which may be empty.
    remote_parent: True if the parent is a span of another process.
    common: further attributes, as `encoding.attributes` wrote them once for many spans.
    """

    trace_id: int
    span_id: int
    parent_id: int
    name: str
    kind: Kind
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: Sequence[Event] = ()
    error: str | None = None
    remote_parent: bool = False
    common: bytes = b""
