-- Requests of one key at a time: how many run, and what a caller that finds none free is told.
--
-- When a stream ends is not known, so Retry-After is an estimate here. It names the time when the key's running streams
-- should have ended, by the mean duration of its streams and twice their deviation. To make that true, a free stream is
-- kept for the caller that was told to wait. It is kept until HOLD after the told time, and from when a newcomer's stream
-- would not be expected to end before. What cannot be promised is that the running streams have ended by then. A key
-- whose callers mostly do not come back gets no holds (`trust`), because the held streams would stand empty.

local HOLD = 2 * 1000000 -- waits are rounded up to whole seconds, and a request is on its way for a while
local LONGEST, SHORTEST = 60 * 1000000, 1000000
-- Without history the wait is short at first. Streams that have run for long make it longer.
local UNKNOWN_DURATION = SHORTEST

-- s: the fields dur, dev and trust of the state, as strings.
local function open_streams(now, s, grace, limit)
  return {
    now = now, grace = grace, limit = limit,
    dur = tonumber(s[1]) or UNKNOWN_DURATION, dev = tonumber(s[2]) or 0, trust = tonumber(s[3]) or 1,
    ahead = tonumber(s[1]) or SHORTEST, -- how far a newcomer's stream reaches; without history, as little as can be said
    active = limit and redis.call('ZCOUNT', KEY.leases, '(' .. whole(now), '+inf') or 0,
  }
end

local function held(c, pending)
  if pending == 0 or c.trust < 0.25 then return 0 end
  return redis.call('ZCOUNT', KEY.held, '(' .. whole(c.now - math.min(HOLD, c.grace)), whole(c.now + c.ahead))
end

local function trust(c, came_back)
  c.trust = came_back and c.trust + (1 - c.trust) / 4 or c.trust * 0.75
  redis.call('HSET', KEY.state, 'trust', string.format('%.4f', c.trust))
end

-- Returns the time from now, us, until the `place`-th stream from now should be free. leases: those of what runs.
local function estimate(c, place, leases)
  local typical = c.dur + 2 * c.dev
  local left = {}
  local running = redis.call('ZRANGEBYSCORE', leases, '(' .. whole(c.now), '+inf', 'LIMIT', 0, 256)
  for i = 1, #running do
    local gone = c.now - tonumber(string.match(running[i], '^(%d+):'))
    -- A stream that is longer than typical already will go on for longer, the longer it has run.
    left[i] = gone < typical and typical - gone or gone / 4
  end
  table.sort(left)
  local us
  if #left == 0 then
    us = typical
  else
    local round = math.floor((place - 1) / #left)
    us = left[(place - 1) % #left + 1] + round * typical
  end
  return math.floor(math.min(LONGEST, math.max(SHORTEST, us)))
end

-- What is known of how long the key's streams take, for `estimate` alone.
local function known_durations(now)
  local s = redis.call('HMGET', KEY.state, 'dur', 'dev')
  return {now = now, dur = tonumber(s[1]) or UNKNOWN_DURATION, dev = tonumber(s[2]) or 0}
end
