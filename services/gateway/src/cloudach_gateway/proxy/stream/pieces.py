"""Values that grow with the chunks of a stream, and about how much they hold: pure."""

from __future__ import annotations

from typing import Any

import orjson

PIECE = 16
"""Bytes that a piece of a text counts for besides its characters: they hold memory, however short it is."""


class _Text(list[str]):
    """A text in pieces: to add to one long string again and again would be quadratic."""


def grow(holder: dict[str, Any], key: str, value: Any) -> int:
    """Texts and lists grow, of anything else the last value counts. Returns about how many bytes more are held."""
    held = holder.get(key)
    if isinstance(value, str):
        if isinstance(held, _Text):
            held.append(value)
        else:
            holder[key] = _Text((held, value) if isinstance(held, str) else (value,))
        return PIECE + len(value)
    if isinstance(value, list) and isinstance(held, list) and not isinstance(held, _Text):
        held.extend(value)
        return _size(value)
    holder[key] = value
    return _size(value) if held is None else 0


def joined(holder: dict[str, Any]) -> dict[str, Any]:
    """The same with its texts in one piece each."""
    return {key: "".join(value) if isinstance(value, _Text) else value for key, value in holder.items()}


def _size(value: Any) -> int:
    return PIECE + (len(orjson.dumps(value)) if isinstance(value, list | dict) else 0)
