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


def unfinished(ids: Sequence[int], *, skip_special: bool = True) -> bytes:
    """What an answer to this prompt begins with once its first character is complete, if the prompt ends within one.

    It is the whole prompt: the incremental decoder that vLLM uses cannot tell then which part of the text is new, and
    gives all of it. Who continues a cut stream by token ids has to know this.
    """
    if not ids or PIECES[ids[-1]].isascii() or not decode(ids[-4:], skip_special=skip_special).endswith("\ufffd"):
        return b""
    return b"".join(PIECES[i] for i in ids if not (skip_special and i in SPECIAL))


def unknown_id(ids: Sequence[int]) -> int | None:
    """The largest id that is outside the vocabulary, if any (a negative one first)."""
    if not ids:
        return None
    low, high = min(ids), max(ids)
    if low < 0:
        return low
    return high if high >= len(PIECES) else None
