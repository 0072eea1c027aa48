"""How keys and usage are shown: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...admission.key_records import LIMITS, KeyRecord

_EARLIEST_MS = round(datetime.min.replace(tzinfo=UTC).timestamp() * 1000)
_LATEST_MS = round(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp() * 1000)


def key_json(record: KeyRecord, api_key: str | None = None) -> dict[str, Any]:
    """Returns what is shown of a key. The secret is in it only the one time that it is shown."""
    shown: dict[str, Any] = {} if api_key is None else {"key": api_key}
    return shown | {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "models": None if record.models is None else list(record.models),
        **{limit.shown: getattr(record.limits, name) for name, limit in LIMITS.items()},
        "created_at": iso(record.created_at_ms),
        "expires_at": iso(record.expires_at_ms),
        "disabled": record.disabled,
        "previous_secret_valid_until": iso(record.previous_valid_until_ms),
        "earlier_secrets_valid_until": [iso(until) for until in record.earlier_valid_until_ms],
    }


def as_json(value: object) -> str:
    utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, indent=2, ensure_ascii=not utf8)


def details(record: KeyRecord) -> str:
    rows = key_json(record)
    width = max(map(len, rows))
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {_plain(value)}" for name, value in rows.items())


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lays rows out as a table. The first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def rows(format: str, names: Sequence[str], found: Iterable[Mapping[str, Any]]) -> str:
    """Writes rows as table, csv or json, without a newline at the end."""
    found = list(found)
    if format == "json":
        return as_json(found)
    if format == "csv":
        return (csv_line(names) + "".join(csv_line([row[name] for name in names]) for row in found)).rstrip("\n")
    head = [name.upper().replace("_", " ") for name in names]
    return table([head, *([str(row[name]) for name in names] for row in found)])


def csv_line(values: Iterable[Any]) -> str:
    """Writes one line of CSV. None is an empty field."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(list(values))
    return line.getvalue()


def key_table(records: Sequence[KeyRecord], now_ms: int) -> str:
    head = ("ID", "TENANT", "NAME", "STATE", "REQ/MIN", "TOK/MIN", "STREAMS", "MODELS", "EXPIRES")
    return table([head, *(_row(record, now_ms) for record in records)])


def state(record: KeyRecord, now_ms: int) -> str:
    if record.disabled:
        return "disabled"
    expired = record.expires_at_ms is not None and record.expires_at_ms <= now_ms
    return "expired" if expired else "active"


def _row(record: KeyRecord, now_ms: int) -> tuple[str, ...]:
    limits = record.limits
    return (
        record.id,
        record.tenant,
        record.name or "-",
        state(record, now_ms),
        *("-" if value is None else str(value) for value in (limits.requests, limits.tokens, limits.concurrency)),
        "all" if record.models is None else ",".join(record.models),
        iso(record.expires_at_ms) or "never",
    )


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == []:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)


def iso(milliseconds: int | None) -> str | None:
    """Writes a time as ISO 8601. A time that no date can name is shown as the first or the last one that a date can."""
    if milliseconds is None:
        return None
    milliseconds = min(max(milliseconds, _EARLIEST_MS), _LATEST_MS)
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
