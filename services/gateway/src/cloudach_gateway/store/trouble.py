"""What can go wrong with Redis, seen from above the store."""

from __future__ import annotations


class StoreDown(Exception):
    """Redis cannot be used now: unreachable, too slow, loading, read-only or out of memory. Go on without it."""


class Unanswered(StoreDown):
    """No answer came to a command that was sent: it may have been done."""


class StoreError(Exception):
    """Redis refused a command that should work: a defect of ours, not an outage."""


# Error prefixes that say "not now" rather than "never".
_OUTAGES = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
)


def from_reply(message: str) -> StoreDown | StoreError:
    """The exception for an error reply such as `READONLY You can't write against a read only replica.`"""
    return StoreDown(message) if message.startswith(_OUTAGES) else StoreError(message)
