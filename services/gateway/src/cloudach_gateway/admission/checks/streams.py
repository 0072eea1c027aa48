"""Requests of the API key at a time. lua/streams.lua says what a caller that finds none free is told, and why."""

from ...errors import RateLimited
from ..check import Alone, Check, Refusal, Refused
from ..refusal_words import STREAM_WAIT_S, try_again_in


def _too_many(refusal: Refusal) -> RateLimited:
    what = f"Too many concurrent requests: this key may have {refusal.limits.concurrency} at a time."
    return RateLimited(f"{what} {try_again_in(refusal.wait_s)}", kind="requests", retry_after_s=refusal.wait_s)


def _alone(seen: Alone) -> Refused | None:
    most = seen.record.limits.concurrency
    return Refused("streams", STREAM_WAIT_S) if most is not None and seen.running >= most else None


STREAMS = Check(
    name="streams",
    lua="""
if concurrency then
  local waiting = held(streams, windows.pending)
  local mine = own and (ready or retry) and redis.call('ZSCORE', KEY.held, own)
  if streams.active >= concurrency or (not mine and streams.active + waiting >= concurrency) then
    if own and not ready and retry then return answer('streams', own_due - now) end
    if ready then
      forget(windows, own, own_due)
      if mine then waiting = waiting - 1 end
    end
    local free = HOLD
    if streams.active >= concurrency then
      free = estimate(streams, streams.active + waiting - concurrency + 1, KEY.leases)
    end
    local due = now + free
    -- With room to spare no place in the windows is kept, because it would only push the others back.
    local book = not everything_fits(windows, cost)
    if book then due = next_place(windows, cost, due) end
    -- A caller that is only in the way of a hold gets none. Holds would follow on holds with nothing running.
    return promised('streams', due, book, streams.active >= concurrency)
  end
end
""",
    refusals={"streams": _too_many},
    alone=_alone,
)
"""Its lease, which is what it counts, is taken in admit.lua: every request has one, for its settlement too."""
