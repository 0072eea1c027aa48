"""Where things lie in Redis. Everything of a tenant carries the hash tag `{tenant}`, so it shares one cluster slot.

cloudach:tenants                          SET   the tenants that have keys (a slot of its own, never in a script)
cloudach:{t}:keys                         SET   the tenant's key ids
cloudach:{t}:key:<id>                     HASH  the key's record (tenancy.FIELDS); hashes of secrets only
cloudach:{t}:log:<id>                     ZSET  window entries: request id or promise -> accounted time, us
cloudach:{t}:cost:<id>                    HASH  window entry -> tokens reserved, later the real ones
cloudach:{t}:promises:<id>                ZSET  promise -> due time, us (each is in the log too)
cloudach:{t}:prints:<id>                  ZSET  the promises by fingerprint (score 0, lexical order)
cloudach:{t}:held:<id>                    ZSET  promises that also hold a stream -> due time, us
cloudach:{t}:state:<id>                   HASH  running sums of the windows, stream durations (lua/window.lua)
cloudach:{t}:leases:<id>                  ZSET  running request "<start us>:<request id>" -> lease end, us
cloudach:{t}:usage:<id>:<yyyymmdd>        HASH  totals of a UTC day; kept 400 days
cloudach:{t}:settled:<request id>         STRING  marks a settled request that never had a lease; kept 2 days
"""

from __future__ import annotations

from functools import lru_cache

TENANTS = "cloudach:tenants"
PROBE = "cloudach:probe"
USAGE_FIELDS = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "finished",
    "cancelled",
    "failed",
)


def key_ids(tenant: str) -> str:
    return f"cloudach:{{{tenant}}}:keys"


def key_record(tenant: str, key_id: str) -> str:
    return f"cloudach:{{{tenant}}}:key:{key_id}"


def usage(tenant: str, key_id: str, day: str) -> str:
    """`day` is yyyymmdd, UTC."""
    return f"cloudach:{{{tenant}}}:usage:{key_id}:{day}"


def settled(tenant: str, request_id: str) -> str:
    return f"cloudach:{{{tenant}}}:settled:{request_id}"


def leases(tenant: str, key_id: str) -> str:
    return f"cloudach:{{{tenant}}}:leases:{key_id}"


@lru_cache(maxsize=8192)
def admission(tenant: str, key_id: str) -> tuple[str, ...]:
    """KEYS of admit.lua."""
    return (
        key_record(tenant, key_id),
        *window(tenant, key_id),
        leases(tenant, key_id),
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
    return (log, cost, state, leases(tenant, key_id), usage(tenant, key_id, day))
