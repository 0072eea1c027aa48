"""Values that grow with the chunks of a stream, and about how many bytes they hold: pure."""

from __future__ import annotations

from typing import Any

import orjson

PIECE = 16
"""A piece of a text counts for this many bytes besides its characters, because even a short one holds memory."""


class _Text(list[str]):
    """A text in pieces, because to add to one long string again and again would take quadratic time."""


def grow(holder: dict[str, Any], key: str, value: Any) -> int:
    """Adds to a text or a list; any other value takes the place of the one before. Returns about how many bytes it
    adds."""
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
    """Returns a copy in which each text is one string."""
    return {key: "".join(value) if isinstance(value, _Text) else value for key, value in holder.items()}


def _size(value: Any) -> int:
    return PIECE + (len(orjson.dumps(value)) if isinstance(value, list | dict) else 0)
