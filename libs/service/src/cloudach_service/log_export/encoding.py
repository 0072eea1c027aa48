"""Writes a line of the log as the protobuf message that OTLP takes, LogRecord of opentelemetry-proto 1. Pure."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..otlp.protobuf import any_value, attributes, field, text

_TIMES = struct.Struct("<sQsQ").pack
_TRACE_ID, _SPAN_ID = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{16}")
_SEVERITIES = ((logging.CRITICAL, 21), (logging.ERROR, 17), (logging.WARNING, 13), (logging.INFO, 9))
_DEBUG = 5


def record(created_ns: int, level: int, event: str, fields: Mapping[str, Any]) -> bytes:
    """Returns one LogRecord: the event is its body, the fields are its attributes. A field without a value is left out.

    created_ns: nanoseconds since 1970. The fields `trace_id` and `span_id` become the record's own, if they are ids.
    """
    known = {name: value for name, value in fields.items() if value is not None}
    ids = b""
    if _TRACE_ID.fullmatch(str(known.get("trace_id"))) and _SPAN_ID.fullmatch(str(known.get("span_id"))):
        ids = b"\x4a\x10" + bytes.fromhex(known.pop("trace_id")) + b"\x52\x08" + bytes.fromhex(known.pop("span_id"))
    head = _TIMES(b"\x09", created_ns, b"\x59", created_ns) + _severity(level) + _body(event)
    return b"".join((head, *attributes(b"\x32", known), ids))


@lru_cache(maxsize=64)
def _severity(level: int) -> bytes:
    number = next((number for least, number in _SEVERITIES if level >= least), _DEBUG)
    return b"\x10%c" % number + text(b"\x1a", logging.getLevelName(level))


@lru_cache(maxsize=256)
def _body(event: str) -> bytes:
    return field(b"\x2a", any_value(event))
