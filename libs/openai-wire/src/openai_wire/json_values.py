"""Counts the values of a JSON body without parsing it, because counting bytes is far faster."""

from __future__ import annotations


def values_in(body: bytes, *, most: int) -> int:
    """Returns about how many values and member names a JSON document holds.

    It counts arrays, objects, names, and all values but the first of each array or object. The number is exact above
    `most`, and may be too high below it. A document that is no JSON gets a number too, which bounds what a parser would
    read before it gives up.
    """
    with_strings = _marks(body)
    if with_strings <= most:
        return with_strings
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') // 2 > most + 1:  # each string is a value or a name
        return most + 1
    return sum(map(_marks, bare.split(b'"')[::2]))


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b":") + text.count(b"{") + text.count(b"[")
