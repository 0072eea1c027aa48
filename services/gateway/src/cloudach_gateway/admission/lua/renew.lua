-- Keeps one API key's running requests: renews their leases and notes how far they are. Requests are declared lost when
-- their gateway has been silent for two lease lives, and what it noted last is billed. Without any lease named, the script
-- only does the latter.
--
-- A request that was settled meanwhile stays gone. One that was declared lost while its gateway was only paused or cut off
-- runs again, and the rest of it is booked when it ends.
--
-- ARG: scripts.Renewal. After those come, for each running request, its lease and
-- "<prompt> <completion> <cached> <route> <model>".
-- Returns the ids of the requests declared lost.

--@include clock.lua
--@include book.lua

local now, ttl = clock(ARG.clock), tonumber(ARG.lease_ttl_us)
local lease_end, seen = whole(now + ttl), whole(now) .. ' '
for i = #ARG + 1, #ARGV, 2 do
  local lease = ARGV[i]
  local runs = redis.call('ZADD', KEY.leases, 'XX', 'CH', lease_end, lease) == 1 or redis.call('ZSCORE', KEY.leases, lease)
  if not runs and redis.call('HEXISTS', KEY.lost, lease) == 1 then
    redis.call('ZADD', KEY.leases, lease_end, lease)
    runs = true
  end
  if runs then
    redis.call('HSET', KEY.running, lease, seen .. ARGV[i + 1])
    --[[@renewed]]
  end
end

local function declare_lost(lease, front)
  local started, id = string.match(lease, '^(%d+):(.*)$')
  local at, prompt, completion, cached, route, model =
    string.match(redis.call('HGET', KEY.running, lease) or '', '^(%d+) (%d+) (%d+) (%d+) (%S*) (.*)$')
  prompt, completion, cached = tonumber(prompt) or 0, tonumber(completion) or 0, tonumber(cached) or 0
  local used = prompt + completion
  local before = redis.call('HGET', KEY.lost, lease)
  redis.call('ZREM', KEY.leases, lease)
  redis.call('HDEL', KEY.running, lease)
  --[[@booked]]
  local part = book(now, {
    id = id, model = model or '', route = route or '',
    prompt = prompt, completion = completion, cached = cached,
    ttft = '', duration = whole(math.floor(((tonumber(at) or tonumber(started)) - tonumber(started)) / 1000)),
    outcome = 'lost', failovers = 0,
  }, before)
  redis.call('HSET', KEY.lost, lease, string.format('%s%.0f %.0f %.0f %.0f', seen, part + 1, prompt, completion, cached))
  redis.call('EXPIRE', KEY.lost, 172800)
  return id
end

local most, gone = tonumber(ARG.most_lost), {}
if most > 0 then
  gone = redis.call('ZRANGEBYSCORE', KEY.leases, '-inf', whole(now - ttl), 'LIMIT', 0, most)
  if #gone > 0 then
    local front = tonumber(redis.call('HGET', KEY.state, 'front')) or 0
    for i = 1, #gone do gone[i] = declare_lost(gone[i], front) end
  end
end

if redis.call('ZCARD', KEY.leases) == 0 then
  redis.call('SREM', KEY.open, ARG.key_id)
else
  redis.call('SADD', KEY.open, ARG.key_id)
  for _, name in ipairs({KEY.leases, KEY.running, KEY.open}) do redis.call('PEXPIRE', name, 2592000000) end -- 30 days
end
return gone
