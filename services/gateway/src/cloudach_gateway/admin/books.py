"""Usage records as values, and the totals that they must add up to. No I/O. docs/usage.md explains the fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..store.layout import USAGE_FIELDS

RECORD_FIELDS = (
    "v",
    "id",
    "part",
    "tenant",
    "key",
    "model",
    "route",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "ttft_ms",
    "duration_ms",
    "outcome",
    "failovers",
    "day",
    "at_ms",
)
_TEXTS = {"id", "tenant", "key", "model", "route", "outcome", "day"}
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


def typed(fields: Mapping[str, str]) -> dict[str, Any]:
    """Returns a record with numbers as numbers; a TTFT that is missing is None. Fields of a later version stay text."""
    return {
        name: value if name in _TEXTS or name not in RECORD_FIELDS else int(value) if value else None
        for name, value in fields.items()
    }


@dataclass(slots=True)
class Sums:
    """These are the sums of usage records, by key id and then by layout.USAGE_FIELDS.

    `twice` holds the ids of requests that would have been counted again.
    """

    keys: dict[str, dict[str, int]] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)


def add_up(records: Iterable[Mapping[str, Any]]) -> Sums:
    """Adds up `typed` records. Each part of a request counts once. Part 1 and on correct a part that said `lost`."""
    sums = Sums()
    seen: set[tuple[str, int]] = set()
    for record in records:
        name = (record["id"], record["part"])
        if name in seen:
            sums.twice.append(record["id"])
            continue
        seen.add(name)
        totals = sums.keys.setdefault(record["key"], dict.fromkeys(USAGE_FIELDS, 0))
        if record["part"] == 0:
            totals["requests"] += 1
        else:
            totals["lost"] -= 1
        totals[record["outcome"]] += 1
        totals["failovers"] += record["failovers"]
        for tokens in _TOKENS:
            totals[tokens] += record[tokens]
    return sums


def differences(
    totals: Mapping[str, Mapping[str, int]], sums: Mapping[str, Mapping[str, int]]
) -> list[tuple[str, str, int, int]]:
    """Returns key id, field, and what totals and records say of it, wherever they disagree."""
    nothing: Mapping[str, int] = {}
    found = []
    for key_id in sorted({*totals, *sums}):
        said, counted = totals.get(key_id, nothing), sums.get(key_id, nothing)
        for name in USAGE_FIELDS:
            if said.get(name, 0) != counted.get(name, 0):
                found.append((key_id, name, said.get(name, 0), counted.get(name, 0)))
    return found


def grouped(rows: Iterable[tuple[dict[str, str], Mapping[str, int]]], by: Sequence[str]) -> list[dict[str, str | int]]:
    """Adds up the totals of all rows (labels, totals) that agree in the labels `by`, in the order of those labels."""
    sums: dict[tuple[str, ...], dict[str, int]] = {}
    for labels, totals in rows:
        of = sums.setdefault(tuple(labels[name] for name in by), dict.fromkeys(USAGE_FIELDS, 0))
        for name in USAGE_FIELDS:
            of[name] += totals[name]
    return [{**dict(zip(by, labels, strict=True)), **totals} for labels, totals in sorted(sums.items())]
