"""Where things lie in Redis. Everything of a tenant carries the hash tag `{tenant}`, so it shares one cluster slot.

cloudach:salt                         STRING  secret of the prefix cache's salts, where the settings name none
cloudach:tenants                      SET   the tenants that have keys (a slot of its own: in no script with other keys)
cloudach:{t}:keys                     SET   the tenant's key ids
cloudach:{t}:key:<id>                 HASH  the key's record (key_records.FIELDS); hashes of secrets only
cloudach:{t}:log:<id>                 ZSET  window entries: request id or promise -> accounted time, us
cloudach:{t}:cost:<id>                HASH  window entry -> tokens reserved, later the real ones
cloudach:{t}:promises:<id>            ZSET  promise -> due time, us (each is in the log too)
cloudach:{t}:prints:<id>              ZSET  the promises by fingerprint (score 0, lexical order)
cloudach:{t}:held:<id>                ZSET  promises that also hold a stream -> due time, us
cloudach:{t}:state:<id>               HASH  running sums of the windows, stream durations (lua/window.lua)
cloudach:{t}:leases:<id>              ZSET  running request "<start us>:<request id>" (its lease) -> lease end, us
cloudach:{t}:running:<id>             HASH  lease -> checkpoint "<us> <prompt> <completion> <cached> <route> <model>"
cloudach:{t}:guided                   ZSET  running guided requests of all keys: lease -> lease end, us
cloudach:{t}:open                     SET   key ids with leases, so that those of killed gateways are found
cloudach:{t}:lost                     HASH  lease declared lost -> "<us> <records> <prompt> <completion> <cached>"
cloudach:{t}:usage:<id>:<yyyymmdd>    HASH  totals of a UTC day (USAGE_FIELDS); kept 400 days
cloudach:{t}:used:<yyyymmdd>          SET   key ids that have totals of that day, deleted ones too; kept 400 days
cloudach:{t}:records                  STREAM  usage records (docs/usage.md); group `billing`
cloudach:{t}:trimmed                  STRING  ms since 1970: records written before may have been dropped
cloudach:{t}:settled:<request id>     STRING  marks a settled request whose lease, if any, was never told; kept 2 days
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

TENANTS = "cloudach:tenants"
SALT = "cloudach:salt"
PROBE = "cloudach:probe"
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
BILLING = "billing"  # the consumer group that every stream of records has


def key_ids(tenant: str) -> str:
    return f"cloudach:{{{tenant}}}:keys"


def key_record(tenant: str, key_id: str) -> str:
    return f"cloudach:{{{tenant}}}:key:{key_id}"


def usage(tenant: str, key_id: str, day: str) -> str:
    """`day` is yyyymmdd, UTC."""
    return f"cloudach:{{{tenant}}}:usage:{key_id}:{day}"


def used(tenant: str, day: str) -> str:
    return f"cloudach:{{{tenant}}}:used:{day}"


def records(tenant: str) -> str:
    return f"cloudach:{{{tenant}}}:records"


def trimmed(tenant: str) -> str:
    return f"cloudach:{{{tenant}}}:trimmed"


def lost(tenant: str) -> str:
    return f"cloudach:{{{tenant}}}:lost"


def open_keys(tenant: str) -> str:
    return f"cloudach:{{{tenant}}}:open"


def guided(tenant: str) -> str:
    return f"cloudach:{{{tenant}}}:guided"


def settled(tenant: str, request_id: str) -> str:
    return f"cloudach:{{{tenant}}}:settled:{request_id}"


def leases(tenant: str, key_id: str) -> str:
    return f"cloudach:{{{tenant}}}:leases:{key_id}"


def running(tenant: str, key_id: str) -> str:
    return f"cloudach:{{{tenant}}}:running:{key_id}"


def utc_day(seconds: float) -> str:
    """yyyymmdd of a time in seconds since 1970."""
    return _day(int(seconds // 86400))


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86400, UTC).strftime("%Y%m%d")


@lru_cache(maxsize=8192)
def admission(tenant: str, key_id: str) -> tuple[str, ...]:
    """KEYS of admit.lua."""
    return (
        key_record(tenant, key_id),
        *window(tenant, key_id),
        leases(tenant, key_id),
        running(tenant, key_id),
        open_keys(tenant),
        guided(tenant),
    )


@lru_cache(maxsize=8192)
def window(tenant: str, key_id: str) -> tuple[str, ...]:
    """The limiter's own structures, all of which may be dropped without loss but of the last minute."""
    prefix = f"cloudach:{{{tenant}}}:"
    return tuple(f"{prefix}{part}:{key_id}" for part in ("log", "cost", "promises", "prints", "held", "state"))


@lru_cache(maxsize=8192)
def settlement(tenant: str, key_id: str, day: str) -> tuple[str, ...]:
    """KEYS of settle.lua; without a lease the settled mark follows."""
    log, cost, _, _, _, state = window(tenant, key_id)
    return (
        log,
        cost,
        state,
        leases(tenant, key_id),
        running(tenant, key_id),
        lost(tenant),
        usage(tenant, key_id, day),
        used(tenant, day),
        records(tenant),
        guided(tenant),
    )


@lru_cache(maxsize=8192)
def renewal(tenant: str, key_id: str, day: str) -> tuple[str, ...]:
    """KEYS of renew.lua."""
    return (*settlement(tenant, key_id, day), open_keys(tenant))
