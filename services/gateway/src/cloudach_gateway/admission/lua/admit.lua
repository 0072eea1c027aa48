-- Admission in one round trip: every check of admission/checks, in its order, and then the request's lease.
--
-- Names: KEY.x stands in store/layout.py or in the check's own file, ARG.x in admission/scripts.py, RECORD.x in
-- key_records.FIELDS. ARG.mode is 'admit', or 'look' for the checks of the key alone.
-- Returns scripts.Reply: its status is 'ok' or the check's; {'unknown'} without the rest where there is no such key.

--@include clock.lua
--@include window.lua
--@include streams.lua

local now = clock(ARG.clock)
local record = redis.call('HMGET', KEY.record, --[[@fields]])
local rpm, tpm, concurrency = tonumber(RECORD.rpm), tonumber(RECORD.tpm), tonumber(RECORD.concurrency)
local cost, retry = tonumber(ARG.tokens), ARG.retry == '1'
local windows, streams -- nil for a key without such limits

local function answer(status, wait_us, lease)
  local requests, tokens, reset_us = 0, 0, 0
  if windows then
    save(windows)
    requests, tokens = windows.n, windows.sum + windows.ahead
    reset_us = math.max(0, windows.front + windows.W - windows.now)
  end
  wait_us, lease = wait_us or 0, lease or ''
  return {--[[@reply]]}
end

--[[@checks_of_key]]

local own, own_due, ready -- the promise that this caller was given before, and whether its time has come
if rpm or tpm or concurrency then
  local window, grace = tonumber(ARG.window_us), tonumber(ARG.grace_us)
  local pending = redis.call('ZCARD', KEY.promises)
  -- A caller may come a little before its time, because clocks differ. Then the key's clock goes ahead to that time.
  local _, due = own_promise({pending = pending}, ARG.fingerprint)
  if due and due > now and due <= now + math.min(50000, window / 200) then now = due end
  local s = redis.call('HMGET', KEY.state, 'at', 'sum', 'ahead', 'front', 'fsum', 'dur', 'dev', 'trust')
  windows = open_window(now, s, {window = window, grace = grace, rpm = rpm, tpm = tpm, pending = pending})
  streams = open_streams(now, {s[6], s[7], s[8]}, grace, concurrency)
  for _ = 1, advance(windows) do trust(streams, false) end
  now = windows.now
  own, own_due = own_promise(windows, ARG.fingerprint)
  ready = own and own_due <= now
end
if ARG.mode == 'look' then return answer('ok') end

-- Refuses, and keeps a place for the caller until `due`.
local function promised(status, due, book, hold)
  -- The queue is bounded. Beyond that, the answer is the end of the queue as it stands, and no place is kept.
  local most = math.min(1024, math.max(256, 2 * math.max(rpm or 0, concurrency or 0)))
  if windows.pending < most then
    local name = string.format('%s:%016.0f:%s', ARG.fingerprint, due, ARG.request_id)
    promise(windows, name, due, cost, book, hold)
  end
  return answer(status, due - now)
end

--[[@checks_of_request]]

-- The lease: it ends when settle.lua gives it back, or when nobody renews it. What stands in `running` is billed if the
-- gateway is lost.
local started, lease_end = whole(now), whole(now + tonumber(ARG.lease_ttl_us))
local lease = started .. ':' .. ARG.request_id
redis.call('ZADD', KEY.leases, lease_end, lease)
redis.call('HSET', KEY.running, lease, started .. ' 0 0 0 ' .. ARG.route .. ' ' .. ARG.model)
if redis.call('ZCARD', KEY.leases) == 1 then -- from then on renew.lua prolongs these lifetimes
  redis.call('SADD', KEY.open, ARG.key_id)
  for _, kept in ipairs({KEY.leases, KEY.running, KEY.open}) do redis.call('PEXPIRE', kept, 2592000000) end -- 30 days
end
--[[@admitted]]
return answer('ok', 0, lease)
