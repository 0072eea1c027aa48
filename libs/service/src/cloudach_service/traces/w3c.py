"""Reads and writes the `traceparent` header of W3C Trace Context, level 1: https://www.w3.org/TR/trace-context-1/"""

from __future__ import annotations

import os
import random
import re
from typing import NamedTuple

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MOST_BYTES = 512  # later versions may be longer than today's 55 bytes, but nobody has to read a novel
_SAMPLED = 0x01

_ids = random.Random()  # nobody has to be kept from guessing ids: they only must not meet
os.register_at_fork(after_in_child=_ids.seed)  # a child would draw its parent's ids


class Parent(NamedTuple):
    """The span of a caller, as its `traceparent` names it. The ids are numbers that are not 0."""

    trace_id: int
    span_id: int
    sampled: bool


def parse(header: bytes) -> Parent | None:
    """Returns None for a header that is not valid, which is ignored as the standard demands."""
    match = _TRACEPARENT.fullmatch(header) if len(header) <= _MOST_BYTES else None
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def written(trace_id: int, span_id: int, *, sampled: bool) -> bytes:
    """Returns the header's value for a child of this span."""
    return b"00-%032x-%016x-%02x" % (trace_id, span_id, sampled)


def new_trace_id() -> int:
    return _ids.getrandbits(128) or 1


def new_span_id() -> int:
    return _ids.getrandbits(64) or 1
