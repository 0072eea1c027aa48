"""Guided requests at a time, counted together for all API keys of a tenant.

No place is kept for a request that is refused here. It waits for its own kind, and must not hold up others.
"""

from ...errors import RateLimited
from ..check import Alone, Check, Refusal, Refused
from ..key_records import KeyLimits
from ..refusal_words import STREAM_WAIT_S, try_again_in
from ..rules import Rules


def _most(limits: KeyLimits, rules: Rules) -> int | None:
    return rules.most_guided if limits.guided is None else limits.guided


def _too_many(refusal: Refusal) -> RateLimited:
    what = (
        "Too many guided requests (response_format, structured outputs, required tools): "
        f"this tenant may have {_most(refusal.limits, refusal.rules)} at a time."
    )
    return RateLimited(f"{what} {try_again_in(refusal.wait_s)}", kind="requests", retry_after_s=refusal.wait_s)


def _alone(seen: Alone) -> Refused | None:
    most = _most(seen.record.limits, seen.rules)
    full = seen.ask.guided and most is not None and seen.guided >= most
    return Refused("guided", STREAM_WAIT_S) if full else None


GUIDED = Check(
    name="guided",
    keys={"guided": "cloudach:{{{tenant}}}:guided"},  # ZSET: lease of a running guided request -> end of the lease, us
    lua="""
local most_guided = ARG.guided == '1' and (tonumber(RECORD.guided) or tonumber(ARG.most_guided))
if most_guided and redis.call('ZCOUNT', KEY.guided, '(' .. whole(now), '+inf') >= most_guided then
  return answer('guided', estimate(known_durations(now), 1, KEY.guided))
end
""",
    admitted="""
if ARG.guided == '1' then
  redis.call('ZREMRANGEBYSCORE', KEY.guided, '-inf', whole(now - 172800000000)) -- two days: nobody comes back then
  redis.call('ZADD', KEY.guided, lease_end, lease)
  redis.call('PEXPIRE', KEY.guided, 2592000000) -- 30 days
end
""",
    renewed="redis.call('ZADD', KEY.guided, 'XX', lease_end, lease)",
    ended="redis.call('ZREM', KEY.guided, lease)",
    refusals={"guided": _too_many},
    alone=_alone,
)
