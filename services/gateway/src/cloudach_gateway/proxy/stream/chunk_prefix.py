"""What all chunks of a stream share: pure."""

from __future__ import annotations

from typing import Any

import orjson

_CHOICES = b',"choices":['
_KEYS = 4  # id, object, created, model


def prefix_of(head: dict[str, Any]) -> bytes:
    return orjson.dumps(head)[:-1] + _CHOICES


def prefix_in(payload: bytes) -> bytes:
    """The head that this stream's running chunks share, if it is in vLLM's compact form; nothing otherwise."""
    cut = payload.find(_CHOICES)
    return payload[: cut + len(_CHOICES)] if cut > 0 and payload.count(b'":', 0, cut) == _KEYS else b""


def with_head(chunk: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    return {**head, **{name: value for name, value in chunk.items() if name not in head}}
