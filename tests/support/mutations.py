"""Values and bytes broken at random, the same for the same `Random`: what clients and engines may send."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.5, -0.0, 5, 20, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 10**40, 1e308),
    *("", "x", "\x00", "null", "400", "🌊海", "\\u0000", "a" * 5000, "data: [DONE]\n\n", "EngineCore"),
    *([], {}, [[]], [{}], [None], {"": None}, [5], ["x"], {"index": 0}, {"error": "x"}, {"message": "x", "code": 400}),
)

Place = tuple[Any, Any]
"""A dict or list, and a key or index in it."""


_DEEPEST = 100


def places(value: Any, depth: int = 0) -> Iterator[Place]:
    """A JSON value's, but for what is nested very deeply."""
    if isinstance(value, dict | list) and depth < _DEEPEST:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key], depth + 1)


def mutated(random: Random, value: Any, *, edits: int = 2) -> Any:
    """A copy of a JSON value in which up to so many places are replaced, taken out, doubled, swapped or wrapped."""
    value = _copy(value)
    for _ in range(random.randint(1, edits)):
        found = list(places(value))
        if not found:
            return _junk(random)
        holder, key = random.choice(found)
        random.choice(_EDITS)(random, holder, key)
    return value


def _junk(random: Random) -> Any:
    return _copy(random.choice(JUNK))


def _copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except RecursionError:  # it has been wrapped often enough
        return []


def _replace(random: Random, holder: Any, key: Any) -> None:
    holder[key] = _junk(random)


def _take_out(_: Random, holder: Any, key: Any) -> None:
    del holder[key]


def _double(_: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, _copy(holder[key]))
    else:
        holder[f"{key}_"] = holder[key]


def _wrap(random: Random, holder: Any, key: Any) -> None:
    for _ in range(random.choice((1, 2, 260))):
        holder[key] = [holder[key]]


def _grow(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder[key], str | list):
        holder[key] = holder[key] * random.choice((0, 2, 50))
    elif isinstance(holder[key], int | float):
        holder[key] = -holder[key]


_EDITS: tuple[Callable[[Random, Any, Any], None], ...] = (
    _replace,
    _replace,
    _replace,
    _take_out,
    _double,
    _wrap,
    _grow,
)


def text(random: Random, value: Any) -> str:
    """JSON, now and then as no library writes it: with keys twice, literals that are none, or loose spaces."""
    form = random.random()
    if form < 0.7:
        return json.dumps(value, separators=(",", ":"))
    if form < 0.9:
        return json.dumps(value, indent=random.choice((None, 1)), ensure_ascii=False)
    written = json.dumps(value, separators=(",", ":"))
    return random.choice(
        (written.replace(":", ":NaN", 1), written + "}", written[:-1], written.replace("{", '{"a":1,"a":2,', 1))
    )


def broken(random: Random, data: bytes) -> bytes:
    """Some bytes replaced, put in, taken out or cut off."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if not changed:
            break
        at = random.randrange(len(changed))
        kind = random.randrange(5)
        if kind == 0:
            changed[at] = random.randrange(256)
        elif kind == 1:
            changed[at:at] = random.choice((b"\r\n", b"\n\n", b'"', b"\\", b"\x00", b"\xff", b"{", b"]", b"data: "))
        elif kind == 2:
            del changed[at : at + random.randint(1, 40)]
        elif kind == 3:
            end = at + random.randint(1, 40)
            changed[at:at] = changed[at:end]
        elif random.random() < 0.3:
            del changed[at:]
    return bytes(changed)
