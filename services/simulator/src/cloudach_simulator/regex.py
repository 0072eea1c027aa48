"""Finds the shortest text that a regular expression matches. Pure.

Python's own parser reads the expression, because it knows all that engines' grammars know of regular expressions.
"""

from __future__ import annotations

import re
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from .errors import bad_request

_LONGEST = 100_000
_OF_CATEGORY: dict[Any, str] = {
    op.CATEGORY_DIGIT: "0",
    op.CATEGORY_WORD: "a",
    op.CATEGORY_SPACE: " ",
    op.CATEGORY_NOT_DIGIT: "a",
    op.CATEGORY_NOT_WORD: " ",
    op.CATEGORY_NOT_SPACE: "a",
}
_LIKELY = ["a", "A", "0", " ", "-", "é", *map(chr, range(32, 127)), *map(chr, range(0x100, 0x180))]


def least_text(pattern: str) -> str:
    """Returns the text. Raises Refusal for what is no regular expression, or is none that an engine's grammar can
    follow."""
    try:
        tree = parser.parse(pattern)
        return _text(tree)
    except (re.error, OverflowError, RecursionError) as error:
        raise bad_request(f"Grammar error: invalid regex: {error}") from None


def _text(tree: Any) -> str:
    made = ""
    for kind, given in tree:
        made += _one(kind, given)
        if len(made) > _LONGEST:
            raise bad_request("Grammar error: the regex asks for too long a text")
    return made


def _one(kind: Any, given: Any) -> str:
    if kind is op.LITERAL:
        return chr(given)
    if kind is op.NOT_LITERAL:
        return "a" if given != ord("a") else "b"
    if kind is op.ANY:
        return "a"
    if kind is op.IN:
        return _member(given)
    if kind is op.BRANCH:
        return min((_text(branch) for branch in given[1]), key=len)
    if kind is op.SUBPATTERN:
        return _text(given[3])
    if kind is op.ATOMIC_GROUP:
        return _text(given)
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        times, _, repeated = given
        part = _text(repeated) if times else ""
        if times * len(part) > _LONGEST:
            raise bad_request("Grammar error: the regex asks for too long a text")
        return part * int(times)
    if kind is op.AT and given in (op.AT_BEGINNING, op.AT_BEGINNING_STRING, op.AT_END, op.AT_END_STRING):
        return ""
    raise bad_request(f"Grammar error: invalid regex: {str(kind).lower()} is not supported")


def _member(members: Any) -> str:
    """Returns a character that a class in brackets holds."""
    refused = members[0][0] is op.NEGATE
    for kind, given in members[1:] if refused else members:
        if not refused:
            return _OF_CATEGORY[given] if kind is op.CATEGORY else chr(given[0] if kind is op.RANGE else given)
    inverse = [pair for pair in members if pair[0] is not op.NEGATE]
    for character in _LIKELY:
        if not any(_holds(kind, given, character) for kind, given in inverse):
            return character
    raise bad_request("Grammar error: the regex matches no text")


def _holds(kind: Any, given: Any, character: str) -> bool:
    if kind is op.CATEGORY:
        name = {op.CATEGORY_DIGIT: r"\d", op.CATEGORY_WORD: r"\w", op.CATEGORY_SPACE: r"\s"}
        name |= {op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_NOT_WORD: r"\W", op.CATEGORY_NOT_SPACE: r"\S"}
        return re.match(name[given], character) is not None
    low, high = given if kind is op.RANGE else (given, given)
    return bool(low <= ord(character) <= high)
