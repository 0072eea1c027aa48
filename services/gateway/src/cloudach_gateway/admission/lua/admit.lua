-- Admission in one round trip: the key, its rules, requests and tokens a minute, a stream's lease.
--
-- KEYS  1 record  2 log  3 cost  4 promises  5 prints  6 held  7 state  8 leases  9 running  10 open  11 guided (store/layout.py)
-- ARGV  1 test clock or ''   2 'admit' or 'look'   3 digest of the key   4 window us   5 grace us   6 lease ttl us
--       7 request id   8 the model's names, one a line   9 tokens to reserve   10 fingerprint   11 '1' for a retry
--       12 "<route> <model>", for the books   13 the key's id   14 '1' for a guided request
--       15 how many of those a tenant may run, where its key does not say, or ''
-- Returns {status, wait us, requests booked, tokens booked, reset us, lease, {fields of the record}}, where status is
--   ok | unknown | expired | disabled | model | never | requests | tokens | streams | guided

--@include clock.lua
--@include window.lua
--@include streams.lua

local keys = {
  record = KEYS[1], log = KEYS[2], cost = KEYS[3], promises = KEYS[4], prints = KEYS[5], held = KEYS[6],
  state = KEYS[7], leases = KEYS[8], running = KEYS[9], open = KEYS[10], guided = KEYS[11],
}
local now = clock(ARGV[1])
local window, grace = tonumber(ARGV[4]), tonumber(ARGV[5])

local record = redis.call('HMGET', keys.record, 'hash', 'prev_hash', 'prev_valid_until_ms', 'name', 'models', 'rpm', 'tpm',
  'concurrency', 'expires_at_ms', 'disabled', 'created_at_ms', 'guided')
local digest = ARGV[3]
if not record[1] then return {'unknown'} end
if record[1] ~= digest then
  local till = record[3]
  if record[2] ~= digest then -- a secret of before the last rotation: "<digest>:<ms>", one a line
    till = string.match(redis.call('HGET', keys.record, 'older') or '', digest .. ':(%d+)')
  end
  if now >= (tonumber(till) or 0) * 1000 then return {'unknown'} end
end
record[1], record[2] = '', '' -- the hashes stay here

local expires = tonumber(record[9])
if expires and now >= expires * 1000 then return {'expired', 0, 0, 0, 0, '', record} end
if record[10] == '1' then return {'disabled', 0, 0, 0, 0, '', record} end

local rpm, tpm, concurrency = tonumber(record[6]), tonumber(record[7]), tonumber(record[8])
local fingerprint = ARGV[10]
local looking = ARGV[2] == 'look'
local most_guided = ARGV[14] == '1' and (tonumber(record[12]) or tonumber(ARGV[15]))

-- What runs: freed by settle, or when nobody renews it. What stands in `running` is billed if its gateway is lost.
local function lease()
  local at = whole(now)
  local name = at .. ':' .. ARGV[7]
  redis.call('ZADD', keys.leases, whole(now + tonumber(ARGV[6])), name)
  redis.call('HSET', keys.running, name, at .. ' 0 0 0 ' .. ARGV[12])
  if redis.call('ZCARD', keys.leases) == 1 then -- from then on renew.lua prolongs them
    redis.call('SADD', keys.open, ARGV[13])
    for _, kept in ipairs({keys.leases, keys.running, keys.open}) do redis.call('PEXPIRE', kept, 2592000000) end -- 30 days
  end
  if ARGV[14] == '1' then
    redis.call('ZREMRANGEBYSCORE', keys.guided, '-inf', whole(now - 172800000000)) -- two days: nobody comes back then
    redis.call('ZADD', keys.guided, whole(now + tonumber(ARGV[6])), name)
    redis.call('PEXPIRE', keys.guided, 2592000000)
  end
  return name
end

local function allowed()
  if not record[5] or record[5] == '' then return true end
  for name in string.gmatch(ARGV[8], '[^\n]+') do
    if string.find(record[5], '\n' .. name .. '\n', 1, true) then return true end
  end
  return false
end

if not (rpm or tpm or concurrency) then
  if looking then return {'ok', 0, 0, 0, 0, '', record} end
  if not allowed() then return {'model', 0, 0, 0, 0, '', record} end
  local wait = most_guided and guided_wait(keys, now, most_guided)
  if wait then return {'guided', wait, 0, 0, 0, '', record} end
  return {'ok', 0, 0, 0, 0, lease(), record}
end

local pending = redis.call('ZCARD', keys.promises)
-- A caller may come a little before its time: clocks differ. Then the key's clock goes ahead to it.
do
  local _, due = own_promise({pending = pending, keys = keys}, fingerprint)
  if due and due > now and due <= now + math.min(50000, window / 200) then now = due end
end

local s = redis.call('HMGET', keys.state, 'at', 'sum', 'ahead', 'front', 'fsum', 'dur', 'dev', 'trust')
local w = open_window(keys, now, s, {window = window, grace = grace, rpm = rpm, tpm = tpm, pending = pending})
local c = open_streams(keys, now, {s[6], s[7], s[8]}, grace, concurrency)
for _ = 1, advance(w) do trust(c, false) end
now = w.now
local own, own_due = own_promise(w, fingerprint)

local function answer(status, wait, name)
  save(w)
  return {status, wait or 0, w.n, w.sum + w.ahead, math.max(0, w.front + w.W - now), name or '', record}
end

if looking then return answer('ok') end
if not allowed() then return answer('model') end

local id, cost = ARGV[7], tonumber(ARGV[9])
if tpm and cost > tpm then return answer('never') end
local wait = most_guided and guided_wait(keys, now, most_guided)
if wait then return answer('guided', wait) end
local retry = ARGV[11] == '1'
local ready = own and own_due <= now

local function reject(status, due, book, hold)
  -- The queue is bounded: beyond, the answer is the end of the queue as it stands, and no place is kept.
  local most = math.min(1024, math.max(256, 2 * math.max(rpm or 0, concurrency or 0)))
  if w.pending < most then
    promise(w, string.format('%s:%016.0f:%s', fingerprint, due, id), due, cost, book, hold)
  end
  return answer(status, due - now)
end

if concurrency then
  local waiting = held(c, w.pending)
  local mine = own and (ready or retry) and redis.call('ZSCORE', keys.held, own)
  if c.active >= concurrency or (not mine and c.active + waiting >= concurrency) then
    if own and not ready and retry then return answer('streams', own_due - now) end
    if ready then
      forget(w, own, own_due)
      if mine then waiting = waiting - 1 end
    end
    local due = now + (c.active < concurrency and HOLD or estimate(c, c.active + waiting - concurrency + 1, keys.leases))
    -- With room to spare no place in the windows is kept: it would only push the others back.
    local book = not everything_fits(w, cost)
    if book then due = next_place(w, cost, due) end
    -- Who is only in the way of a hold gets none: holds would follow on holds with nothing running.
    return reject('streams', due, book, c.active >= concurrency)
  end
end

if ready and redis.call('ZSCORE', keys.log, own) then
  if claim(w, own, own_due, id, cost) then trust(c, true) end
else
  if ready and forget(w, own, own_due) then trust(c, true) end
  -- An impatient one may get in early, but not twice into the queue. Of equal requests' promises it gives up the latest:
  -- the others may be on their way.
  local impatient = own and retry and not ready
  local last, last_due, booked, hold
  if impatient then
    last, last_due = own_promise(w, fingerprint, true)
    booked = redis.call('ZSCORE', keys.log, last)
    hold = forget(w, last, last_due)
  end
  local full = obstacle(w, cost)
  if not full then
    if rpm or tpm then add(w, id, now, cost) end
  elseif impatient then
    promise(w, last, last_due, cost, booked, hold)
    return answer(full, own_due - now)
  else
    local place, due = abandoned(w, cost)
    if not place then return reject(full, next_place(w, cost, now), true, false) end
    if claim(w, place, due, id, cost) then trust(c, false) end
  end
end

return answer('ok', 0, lease())
