-- Concurrent streams: a lease for each running request, and what to tell those who find none free.
--
-- When a stream ends is not known, so Retry-After is an estimate here: when the key's running streams should have ended by
-- the mean duration of its streams and twice their deviation. What is done to make it true: a free stream is kept for the
-- one that was told to wait (until HOLD after the told time) from when a newcomer's would not be expected to end before.
-- What cannot be promised: that the running streams have ended by then. A key whose callers mostly do not come back gets
-- no holds (`trust`), or they would stand empty for nobody.

local HOLD = 2 * 1000000 -- waits are rounded up to whole seconds, and a request is on its way for a while
local LONGEST, SHORTEST = 60 * 1000000, 1000000
local UNKNOWN_DURATION = SHORTEST -- without history a short wait at first: what has run for long is told a longer one

-- `s`: the fields dur, dev and trust of the state, as strings.
local function open_streams(keys, now, s, grace, limit)
  return {
    keys = keys, now = now, grace = grace, limit = limit,
    dur = tonumber(s[1]) or UNKNOWN_DURATION, dev = tonumber(s[2]) or 0, trust = tonumber(s[3]) or 1,
    ahead = tonumber(s[1]) or SHORTEST, -- of a key without history as little as can be said
    active = limit and redis.call('ZCOUNT', keys.leases, '(' .. whole(now), '+inf') or 0,
  }
end

local function held(c, pending)
  if pending == 0 or c.trust < 0.25 then return 0 end
  return redis.call('ZCOUNT', c.keys.held, '(' .. whole(c.now - math.min(HOLD, c.grace)), whole(c.now + c.ahead))
end

local function trust(c, came_back)
  c.trust = came_back and c.trust + (1 - c.trust) / 4 or c.trust * 0.75
  redis.call('HSET', c.keys.state, 'trust', string.format('%.4f', c.trust))
end

-- Time from now, us, until the `place`-th stream from now should be free. leases: of those that run.
local function estimate(c, place, leases)
  local typical = c.dur + 2 * c.dev
  local left = {}
  local running = redis.call('ZRANGEBYSCORE', leases, '(' .. whole(c.now), '+inf', 'LIMIT', 0, 256)
  for i = 1, #running do
    local gone = c.now - tonumber(string.match(running[i], '^(%d+):'))
    -- Longer than typical already: the longer it has run, the longer it will.
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

-- Smoothed like TCP's round-trip time.
local function learn_duration(state, dur, dev, us)
  local first = not dur
  if first then
    dur, dev = us, us / 2
  else
    dev = dev + (math.abs(us - dur) - dev) / 4
    dur = dur + (us - dur) / 8
  end
  redis.call('HSET', state, 'dur', whole(dur), 'dev', whole(dev))
  if first then redis.call('PEXPIRE', state, 86400000) end
end

-- Guided requests count together for all keys of a tenant. Returns nil if one more may run, else when to come again, us.
-- No place is kept: such a request waits for its own kind, and must not hold up others.
local function guided_wait(keys, now, limit)
  if redis.call('ZCOUNT', keys.guided, '(' .. whole(now), '+inf') < limit then return nil end
  local s = redis.call('HMGET', keys.state, 'dur', 'dev')
  return estimate({now = now, dur = tonumber(s[1]) or UNKNOWN_DURATION, dev = tonumber(s[2]) or 0}, 1, keys.guided)
end
