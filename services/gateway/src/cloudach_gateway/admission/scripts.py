"""The limiter's Lua scripts, put together from lua/*.lua and the checks, and the names under which they get their data.

An argument list is a NamedTuple, or the fields of one: its field names are the script's `ARG.x`. So Lua and Python
cannot count differently, and a name that only one of them knows fails when this module is imported (store/scripts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from ..store import layout, scripts
from .check import Check
from .checks import CHECKS
from .grants import Ask, Settlement
from .key_records import FIELDS
from .rules import Rules

_FOLDER = Path(__file__).parent / "lua"


class Reply(NamedTuple):
    """This is the reply of admit.lua. `record` has the values of key_records.FIELDS; times are us."""

    status: bytes
    wait_us: int
    requests: int
    tokens: int
    reset_us: int
    lease: bytes
    record: list[bytes | None]


class Renewal(NamedTuple):
    """The arguments of renew.lua. `most_lost` bounds how many requests one call may declare lost."""

    clock: str
    lease_ttl_us: int
    window_us: int
    tenant: str
    key_id: str
    day: str
    most_lost: int


class Trimming(NamedTuple):
    """The arguments of trim.lua: how long records and the marks of lost requests are kept."""

    clock: str
    keep_us: int
    keep_marks_us: int
    unread: str


RULES = tuple(field.name.removesuffix("_s") + "_us" * field.name.endswith("_s") for field in fields(Rules))
ADMISSION = ("clock", "mode", "digest", "key_id", *RULES, *Ask._fields)
SETTLEMENT = ("clock", "window_us", *Settlement._fields)


class Limiter(NamedTuple):
    """The three scripts that a request meets."""

    admit: scripts.Script
    settle: scripts.Script
    renew: scripts.Script


def assembled(checks: Sequence[Check]) -> Limiter:
    """Puts the Lua of these checks into the scripts. Raises ScriptError where Lua and Python do not agree on a name."""
    keys = dict(layout.KEYS)
    for check in checks:
        for name, pattern in check.keys.items():
            if keys.setdefault(name, pattern) != pattern:
                raise scripts.ScriptError(f"the check {check.name} calls a Redis key {name}, as another one is called")
    keys["settled"] = keys.pop("settled")  # the last of KEYS, because most settlements come without it
    parts = {
        "fields": ", ".join(f"'{name}'" for name in FIELDS),
        "reply": ", ".join(Reply._fields),
        "checks_of_key": _joined(checks, "lua", of_key=True),
        "checks_of_request": _joined(checks, "lua", of_key=False),
        **{moment: _joined(checks, moment) for moment in ("admitted", "renewed", "ended", "booked")},
    }
    common: Any = {"keys": keys, "record": FIELDS, "parts": parts}
    return Limiter(
        scripts.load(_FOLDER, "admit", args=ADMISSION, **common),
        scripts.load(_FOLDER, "settle", args=SETTLEMENT, **common),
        scripts.load(_FOLDER, "renew", args=Renewal._fields, **common),
    )


def _joined(checks: Sequence[Check], moment: str, *, of_key: bool | None = None) -> str:
    texts = [
        f"do -- {check.name}\n{getattr(check, moment).strip()}\nend"
        for check in checks
        if getattr(check, moment) and of_key in (None, check.of_key)
    ]
    return "\n".join(texts)


LIMITER = assembled(CHECKS)
SCAN = scripts.load(_FOLDER, "scan")
TRIM = scripts.load(_FOLDER, "trim", keys=layout.KEYS, args=Trimming._fields)
MEMORY = scripts.load(_FOLDER, "memory")
ALL = (*LIMITER, SCAN, TRIM, MEMORY)
