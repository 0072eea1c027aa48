"""Reads values as operators type them. Each function raises ArgumentTypeError, which argparse shows as wrong usage."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, date, datetime, timedelta

from ...admission.api_keys import KEY_ID, TENANT, parse_api_key
from ...errors import InvalidApiKey


class WrongUsage(Exception):
    """Options that do not go together; the message names one of them."""


_DURATION = re.compile(r"(\d+)([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Times within these bounds can be reckoned with and shown wherever they are read again, in every time zone.
_LONGEST = timedelta(days=36_500)
_FIRST, _LAST = date(1970, 1, 1), date(9998, 12, 31)


def duration(text: str) -> timedelta:
    """Reads a duration such as 30s, 15m, 24h, 30d or 2w. 0 needs no unit, and gives a duration of length zero."""
    if text == "0":
        return timedelta()
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: a number and s, m, h, d or w, as in 24h")
    try:
        found = timedelta(**{_UNITS[match[2]]: int(match[1])})
    except (OverflowError, ValueError):
        found = timedelta.max
    if found > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is too long: at most {_LONGEST.days}d")
    return found


def moment(text: str) -> datetime | None:
    """Reads a duration from now, an ISO date or time (UTC unless it says otherwise), `now` or `never` (None)."""
    if text == "never":
        return None
    if text == "now":
        return datetime.now(UTC)
    if _DURATION.fullmatch(text):
        return datetime.now(UTC) + duration(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: 30d, 2030-01-31, 2030-01-31T12:00:00Z, now or never"
        ) from None
    if not _FIRST <= found.date() <= _LAST:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: {_FIRST} to {_LAST}, or never for no end")
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def count(text: str, *, without: str = "none") -> int | None:
    """Reads a positive number. The word `without` takes the limit away."""
    if text == without:
        return None
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a positive number nor {without}") from None


def positive(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no positive number")


def day(text: str) -> date:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        try:
            found = date.fromisoformat(text)
        except ValueError:
            pass
        else:
            if not _FIRST <= found <= _LAST:
                raise argparse.ArgumentTypeError(f"{text!r} is out of range: {_FIRST} to {_LAST}")
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is no day: YYYY-MM-DD")


def tenant(text: str) -> str:
    if TENANT.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no tenant name: 1 to 32 of a-z, 0-9 and _")


def key_id(text: str) -> str:
    """Returns the id of a key that is named by its id, or by the key itself."""
    try:
        return parse_api_key(text).key_id
    except InvalidApiKey:
        if KEY_ID.fullmatch(text):
            return text
    shown = text if len(text) <= 16 else text[:12] + "…"  # never a whole secret
    raise argparse.ArgumentTypeError(f"{shown!r} is neither a key id nor a key")


def word(text: str) -> str:
    """Reads the name of a consumer or a group."""
    if text and text.isprintable() and " " not in text:
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no name: printable, without spaces")


def names(text: str) -> list[str] | None:
    """Reads names between commas; `all` is no restriction."""
    if text == "all":
        return None
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of model names: llama3-8b,qwen3-4b or all")
    return found


def milliseconds(when: datetime | None) -> int | None:
    return None if when is None else round(when.timestamp() * 1000)
