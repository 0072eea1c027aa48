"""Reads the headers of an engine's answer: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Headers = Mapping[bytes, bytes]
"""The headers whose names are in `KEPT`. Names are in lower case."""

KEPT = frozenset({b"content-type", b"content-encoding", b"retry-after", b"retry-after-ms"})

_LONGEST_WAIT_S = 3600.0
_MEDIA_TYPE = re.compile(r"[\w.+/-]{1,80}", re.ASCII)


def media_type(headers: Headers) -> str:
    """Returns the media type without parameters, like `text/html`; '' if it is not there or not well-formed."""
    named = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    return named if _MEDIA_TYPE.fullmatch(named) else ""


def encoding(headers: Headers) -> str:
    """Returns the content encoding, like `gzip`; '' where the body is not encoded."""
    named = headers.get(b"content-encoding", b"").strip().lower().decode("latin-1")
    if named in ("", "identity"):
        return ""
    return named if _MEDIA_TYPE.fullmatch(named) else "unknown"


def may_be_events(headers: Headers) -> bool:
    """Returns whether an event stream can follow. Some servers name another media type for theirs, or none."""
    kind = media_type(headers)
    return not (kind.endswith("json") or "html" in kind or encoding(headers))


def retry_after_s(headers: Headers) -> float:
    """Returns how long the engine wants to be left alone: 0 where it does not say, and an hour at most."""
    wait_s = 0.0
    milliseconds, wait = headers.get(b"retry-after-ms", b""), headers.get(b"retry-after", b"")
    if milliseconds.isdigit():
        wait_s = _seconds(milliseconds) / 1000
    if wait.isdigit():
        wait_s = max(wait_s, _seconds(wait))
    elif wait:
        wait_s = max(wait_s, _until(wait.decode("latin-1")))
    return min(wait_s, _LONGEST_WAIT_S)


def _seconds(digits: bytes) -> float:
    return float(digits[:12])


def _until(date: str) -> float:
    try:
        at = parsedate_to_datetime(date)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0
