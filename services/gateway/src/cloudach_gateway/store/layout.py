"""Where things lie in Redis.

Everything of a tenant carries the hash tag `{tenant}`, so it shares one cluster slot. Gateways of two versions run side
by side during an update: what is stored under a name must stay readable by both.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

SALT = "cloudach:salt"
"""STRING: the secret of the prefix cache's salts, where the settings name none."""

TENANTS = "cloudach:tenants"
"""SET of the tenants that have keys. It has a slot of its own, so no script uses it beside other keys."""

PROBE = "cloudach:probe"

_TENANT = "cloudach:{{{tenant}}}:"

KEYS = {
    # HASH: the API key's record (admission.key_records.FIELDS). Of secrets it has only the hashes.
    "record": f"{_TENANT}key:{{key_id}}",
    # ZSET of window entries: request id or promise -> accounted time, us.
    "log": f"{_TENANT}log:{{key_id}}",
    # HASH: window entry -> tokens reserved, later the tokens used.
    "cost": f"{_TENANT}cost:{{key_id}}",
    # ZSET: promise -> due time, us. Each is in the log too.
    "promises": f"{_TENANT}promises:{{key_id}}",
    # ZSET of the promises by fingerprint (score 0, lexical order).
    "fingerprints": f"{_TENANT}prints:{{key_id}}",
    # ZSET of the promises that also hold a stream -> due time, us.
    "held": f"{_TENANT}held:{{key_id}}",
    # HASH: running sums of the windows (lua/window.lua) and stream durations (lua/streams.lua).
    "state": f"{_TENANT}state:{{key_id}}",
    # ZSET of running requests: "<start us>:<request id>", which is the request's lease -> end of the lease, us.
    "leases": f"{_TENANT}leases:{{key_id}}",
    # HASH: lease -> checkpoint "<us> <prompt> <completion> <cached> <route> <model>".
    "running": f"{_TENANT}running:{{key_id}}",
    # SET of the key ids that have leases, so that those of killed gateways are found.
    "open": f"{_TENANT}open",
    # HASH: lease declared lost -> "<us> <records> <prompt> <completion> <cached>".
    "lost": f"{_TENANT}lost",
    # HASH: totals of a UTC day (USAGE_FIELDS), kept for 400 days.
    "usage": f"{_TENANT}usage:{{key_id}}:{{day}}",
    # SET of the key ids that have totals of that day, deleted ones too, kept for 400 days.
    "used": f"{_TENANT}used:{{day}}",
    # STREAM of usage records (docs/usage.md), with the consumer group `billing`.
    "records": f"{_TENANT}records",
    # STRING: ms since 1970. Records that were written before may have been dropped.
    "trimmed": f"{_TENANT}trimmed",
    # STRING, kept for 2 days: marks a settled request whose lease, if it has one, was never told.
    "settled": f"{_TENANT}settled:{{request_id}}",
}
"""Every Redis key that more than one script or module uses, by the name under which Lua knows it (`KEY.log`).

A key that only one check uses stands in that check's file (admission/checks).
"""

_KEY_IDS = f"{_TENANT}keys"  # SET of the tenant's key ids

USAGE_FIELDS = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "finished",
    "cancelled",
    "failed",
    "lost",
    "failovers",
)

BILLING = "billing"
"""The consumer group that every stream of usage records has."""


@lru_cache(maxsize=32768)
def keys_of(patterns: tuple[str, ...], tenant: str, key_id: str = "", day: str = "") -> tuple[str, ...]:
    """Returns the KEYS of a script for one API key, from `Script.keys`."""
    return tuple(pattern.format(tenant=tenant, key_id=key_id, day=day) for pattern in patterns)


def key_ids(tenant: str) -> str:
    return _KEY_IDS.format(tenant=tenant)


def key_record(tenant: str, key_id: str) -> str:
    return KEYS["record"].format(tenant=tenant, key_id=key_id)


def usage(tenant: str, key_id: str, day: str) -> str:
    """`day` is yyyymmdd, UTC."""
    return KEYS["usage"].format(tenant=tenant, key_id=key_id, day=day)


def used(tenant: str, day: str) -> str:
    return KEYS["used"].format(tenant=tenant, day=day)


def records(tenant: str) -> str:
    return KEYS["records"].format(tenant=tenant)


def trimmed(tenant: str) -> str:
    return KEYS["trimmed"].format(tenant=tenant)


def lost(tenant: str) -> str:
    return KEYS["lost"].format(tenant=tenant)


def open_keys(tenant: str) -> str:
    return KEYS["open"].format(tenant=tenant)


def settled(tenant: str, request_id: str) -> str:
    return KEYS["settled"].format(tenant=tenant, request_id=request_id)


def leases(tenant: str, key_id: str) -> str:
    return KEYS["leases"].format(tenant=tenant, key_id=key_id)


def running(tenant: str, key_id: str) -> str:
    return KEYS["running"].format(tenant=tenant, key_id=key_id)


def limiter_keys(tenant: str, key_id: str) -> tuple[str, ...]:
    """Names the limiter's own structures. If they are dropped, only what they knew of the last minute is lost."""
    names = ("log", "cost", "promises", "fingerprints", "held", "state")
    return tuple(KEYS[name].format(tenant=tenant, key_id=key_id) for name in names)


def utc_day(seconds: float) -> str:
    """Returns the day as yyyymmdd of a time in seconds since 1970."""
    return _day(int(seconds // 86400))


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86400, UTC).strftime("%Y%m%d")
