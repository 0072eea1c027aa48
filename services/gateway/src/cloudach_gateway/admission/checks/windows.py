"""Requests and tokens a minute: two exact sliding windows.

lua/window.lua has them; window.py has the same for the time without Redis.
"""

from ...errors import RateLimited
from ..check import Alone, Check, Refusal, Refused
from ..refusal_words import try_again_in


def _too_many_requests(refusal: Refusal) -> RateLimited:
    what = f"Rate limit reached: {refusal.limits.requests} requests per minute."
    return RateLimited(f"{what} {try_again_in(refusal.wait_s)}", kind="requests", retry_after_s=refusal.wait_s)


def _too_many_tokens(refusal: Refusal) -> RateLimited:
    what = (
        f"Rate limit reached: {refusal.limits.tokens} tokens per minute, this request needs up to {refusal.ask.tokens}."
    )
    return RateLimited(f"{what} {try_again_in(refusal.wait_s)}", kind="tokens", retry_after_s=refusal.wait_s)


def _alone(seen: Alone) -> Refused | None:
    limits, ask = seen.record.limits, seen.ask
    if limits.requests is None and limits.tokens is None:
        return None
    decision = seen.window.admit(
        seen.now,
        limits.requests,
        limits.tokens,
        name=ask.request_id,
        print=ask.fingerprint,
        cost=ask.tokens,
        retry=ask.retry,
    )
    return None if decision.obstacle is None else Refused(decision.obstacle, decision.wait / 1_000_000)


WINDOWS = Check(
    name="windows",
    lua="""
if windows then
  if ready and redis.call('ZSCORE', KEY.log, own) then
    if claim(windows, own, own_due, ARG.request_id, cost) then trust(streams, true) end
  else
    if ready and forget(windows, own, own_due) then trust(streams, true) end
    -- An impatient caller may get in early, but not twice into the queue. Of the promises to equal requests it gives up
    -- the latest, because the other requests may be on their way.
    local impatient = own and retry and not ready
    local last, last_due, booked, hold
    if impatient then
      last, last_due = own_promise(windows, ARG.fingerprint, true)
      booked = redis.call('ZSCORE', KEY.log, last)
      hold = forget(windows, last, last_due)
    end
    local full = obstacle(windows, cost)
    if not full then
      if rpm or tpm then add(windows, ARG.request_id, now, cost) end
    elseif impatient then
      promise(windows, last, last_due, cost, booked, hold)
      return answer(full, own_due - now)
    else
      local place, due = abandoned(windows, cost)
      if not place then return promised(full, next_place(windows, cost, now), true, false) end
      if claim(windows, place, due, ARG.request_id, cost) then trust(streams, false) end
    end
  end
end
""",
    booked="correct(id, used, front)",
    refusals={"requests": _too_many_requests, "tokens": _too_many_tokens},
    alone=_alone,
)
