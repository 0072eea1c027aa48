-- Keeps one key's running requests: renews their leases and notes how far they are. Declares those lost whose gateway has
-- been silent for two lease lives, and bills what it noted last. Without any lease named it only does the latter.
--
-- A request that was settled meanwhile stays gone. One that was declared lost while its gateway was only paused or cut off
-- runs again; the rest of it is booked when it ends.
--
-- KEYS  1 log  2 cost  3 state  4 leases  5 running  6 lost  7 usage of the day  8 keys used that day  9 records  10 guided
--       11 open
-- ARGV  1 test clock or ''  2 lease ttl us  3 window us  4 tenant  5 key  6 day, yyyymmdd  7 how many may be declared lost
--       8… lease, "<prompt> <completion> <cached> <route> <model>"
-- Returns the ids of the requests declared lost.

--@include clock.lua
--@include book.lua

local now, ttl, key = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[5]
local leases, running, lost, guided, open = KEYS[4], KEYS[5], KEYS[6], KEYS[10], KEYS[11]
local k = {
  log = KEYS[1], cost = KEYS[2], state = KEYS[3], usage = KEYS[7], used = KEYS[8], records = KEYS[9],
}

local till, seen = whole(now + ttl), whole(now) .. ' '
for i = 8, #ARGV, 2 do
  local lease = ARGV[i]
  local runs = redis.call('ZADD', leases, 'XX', 'CH', till, lease) == 1 or redis.call('ZSCORE', leases, lease)
  if not runs and redis.call('HEXISTS', lost, lease) == 1 then
    redis.call('ZADD', leases, till, lease)
    runs = true
  end
  if runs then
    redis.call('HSET', running, lease, seen .. ARGV[i + 1])
    redis.call('ZADD', guided, 'XX', till, lease)
  end
end

local function bury(lease, front)
  local started, id = string.match(lease, '^(%d+):(.*)$')
  local at, prompt, completion, cached, route, model =
    string.match(redis.call('HGET', running, lease) or '', '^(%d+) (%d+) (%d+) (%d+) (%S*) (.*)$')
  prompt, completion, cached = tonumber(prompt) or 0, tonumber(completion) or 0, tonumber(cached) or 0
  local before = redis.call('HGET', lost, lease)
  redis.call('ZREM', leases, lease)
  redis.call('HDEL', running, lease)
  correct(k, tonumber(ARGV[3]), front, id, prompt + completion)
  local part = book(k, now, {
    id = id, tenant = ARGV[4], key = key, model = model or '', route = route or '',
    prompt = prompt, completion = completion, cached = cached,
    ttft = '', duration = whole(math.floor(((tonumber(at) or tonumber(started)) - tonumber(started)) / 1000)),
    outcome = 'lost', failovers = 0, day = ARGV[6],
  }, before)
  redis.call('HSET', lost, lease, string.format('%s%.0f %.0f %.0f %.0f', seen, part + 1, prompt, completion, cached))
  redis.call('EXPIRE', lost, 172800)
  return id
end

local most, gone = tonumber(ARGV[7]), {}
if most > 0 then
  gone = redis.call('ZRANGEBYSCORE', leases, '-inf', whole(now - ttl), 'LIMIT', 0, most)
  if #gone > 0 then
    local front = tonumber(redis.call('HGET', k.state, 'front')) or 0
    for i = 1, #gone do gone[i] = bury(gone[i], front) end
  end
end

if redis.call('ZCARD', leases) == 0 then
  redis.call('SREM', open, key)
else
  redis.call('SADD', open, key)
  for _, name in ipairs({leases, running, open}) do redis.call('PEXPIRE', name, 2592000000) end -- 30 days
end
return gone
