"""The errors of the store, as the layers above see them."""

from __future__ import annotations


class StoreDown(Exception):
    """Redis cannot be used now: it is unreachable, too slow, loading, read-only or out of memory. Go on without it."""


class Unanswered(StoreDown):
    """No answer came to a command that was sent, so it may have been done."""


class StoreError(Exception):
    """Redis refused a command that should work. This is a defect of ours, not an outage."""


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
    """Makes the exception for an error reply such as `READONLY You can't write against a read only replica.`"""
    return StoreDown(message) if message.startswith(_OUTAGES) else StoreError(message)
