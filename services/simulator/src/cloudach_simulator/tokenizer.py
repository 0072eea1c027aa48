"""Turns text into token ids and back. Pure, deterministic, and lossless for every string."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .vocabulary import IDS, PIECES, SPECIAL

_SPLIT = re.compile(r"</?tool_call>| ?[A-Za-zéïü]+|\n+| +|[^\sA-Za-z]{2,4}|.", re.DOTALL)


def encode(text: str) -> list[int]:
    """Returns the ids of `text`. Text that is no known piece becomes single bytes, so characters may be split."""
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
    """Returns the text of `ids`. Bytes that form no character come out as U+FFFD."""
    if skip_special:
        ids = (i for i in ids if i not in SPECIAL)
    return b"".join(PIECES[i] for i in ids).decode("utf-8", "replace")


def unfinished(ids: Sequence[int], *, skip_special: bool = True) -> bytes:
    """Returns the text that an answer repeats if its prompt ends within a character: the whole prompt.

    vLLM's incremental decoder cannot tell then which part of the text is new, so it gives all of it. A gateway that
    continues a broken stream by token ids has to know this.
    """
    if not ids or PIECES[ids[-1]].isascii() or not decode(ids[-4:], skip_special=skip_special).endswith("\ufffd"):
        return b""
    return b"".join(PIECES[i] for i in ids if not (skip_special and i in SPECIAL))


def unknown_id(ids: Sequence[int]) -> int | None:
    """Returns the largest id outside the vocabulary, if any. A negative id comes first."""
    if not ids:
        return None
    low, high = min(ids), max(ids)
    if low < 0:
        return low
    return high if high >= len(PIECES) else None
