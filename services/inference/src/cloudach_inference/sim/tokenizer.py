"""Text to token ids and back: pure, deterministic and lossless for every string."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .vocabulary import IDS, PIECES, SPECIAL

_SPLIT = re.compile(r"</?tool_call>| ?[A-Za-zéïü]+|\n+| +|[^\sA-Za-z]{2,4}|.", re.DOTALL)


def encode(text: str) -> list[int]:
    """The ids of `text`; what is no known piece becomes single bytes, so that characters may be split."""
    ids: list[int] = []
    for match in _SPLIT.finditer(text):
        piece = match.group().encode("utf-8", "replace")
        known = IDS.get(piece)
        if known is not None:
            ids.append(known)
        else:
            ids.extend(piece)
    return ids


def decode(ids: Iterable[int], *, skip_special: bool = True) -> str:
    """The text of `ids`; bytes that form no character come out as U+FFFD."""
    if skip_special:
        ids = (i for i in ids if i not in SPECIAL)
    return b"".join(PIECES[i] for i in ids).decode("utf-8", "replace")


def unknown_id(ids: Sequence[int]) -> int | None:
    """The largest id that is outside the vocabulary, if any (a negative one first)."""
    if not ids:
        return None
    low, high = min(ids), max(ids)
    if low < 0:
        return low
    return high if high >= len(PIECES) else None
