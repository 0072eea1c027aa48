"""These functions compare an object that is there with what it should be. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

_DEFAULTS: dict[str, Any] = {"protocol": "TCP", "numOfHosts": 1, "priority": 0, "optional": False, "suspend": False}
"""The API server writes these into a rayClusterConfig of its own accord. Empty values count as absent, because
KubeRay's full updates and defaults bring them."""
_MISSING = object()


def covers(there: Any, wanted: Any) -> bool:
    """Tells if all of `wanted` is in `there`. What other writers have added does not count."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            name in there and covers(there[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(covers(a, b) for a, b in zip(there, wanted, strict=True))
        )
    return bool(there == wanted)


def extras(there: Any, wanted: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yields the fields and list entries of `there` that `wanted` has not, with their values.

    Empty values and defaults are left out. Entries with a `name` are told apart by it, others by their place. A value
    that differs is no extra.
    """
    if isinstance(wanted, dict) and isinstance(there, dict):
        for name, value in there.items():
            if name in wanted:
                yield from extras(value, wanted[name], (*path, name))
            elif not _is_nothing(value) and _DEFAULTS.get(name, _MISSING) != value:
                yield (*path, name), value
    elif isinstance(wanted, list) and isinstance(there, list):
        for number, value in enumerate(there):
            partner = _partner(number, value, wanted)
            if partner is _MISSING:
                yield (*path, number), value
            else:
                yield from extras(value, partner, (*path, number))


def foreign(there: Any, wanted: Any) -> str:
    """Returns the extras as one text that can be compared; empty if there are none."""
    found = [[list(path), value] for path, value in extras(there, wanted)]
    return json.dumps(found, sort_keys=True) if found else ""


def removals(paths: list[Path], *, below: Path) -> list[dict[str, Any]]:
    """Returns operations of a JSON patch that remove these paths. List entries go last first, so that the places of the
    others stay right.
    """
    ordered = sorted(paths, key=_depth_and_place, reverse=True)
    return [{"op": "remove", "path": "".join(f"/{_escaped(step)}" for step in (*below, *path))} for path in ordered]


def _partner(number: int, value: Any, wanted: list[Any]) -> Any:
    if isinstance(value, dict) and "name" in value:
        same_place = wanted[number] if number < len(wanted) else None
        if isinstance(same_place, dict) and same_place.get("name") == value["name"]:
            return same_place
        return next((one for one in wanted if isinstance(one, dict) and one.get("name") == value["name"]), _MISSING)
    return wanted[number] if number < len(wanted) else _MISSING


def _is_nothing(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_nothing(one) for one in value.values())
    return value is None or value in ("", [])


def _depth_and_place(path: Path) -> tuple[int, int]:
    last = path[-1]
    return len(path), last if isinstance(last, int) else 0


def _escaped(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")
