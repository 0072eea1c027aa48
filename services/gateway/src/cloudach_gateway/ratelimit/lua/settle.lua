-- The end of a request: its lease, its real tokens in the window, the totals of the day. Once for each request:
-- the lease is the ticket, and a request that was admitted without Redis leaves a mark instead.
--
-- KEYS  1 log  2 cost  3 state  4 leases  5 usage of the day  6 settled mark, without a lease
-- ARGV  1 test clock or ''  2 request id  3 lease or ''  4 window us  5 prompt  6 completion  7 cached tokens  8 outcome
-- Returns 1 if this call settled it, 0 if it was settled before.

--@include clock.lua
--@include streams.lua

local now = clock(ARGV[1])
local id, lease, window = ARGV[2], ARGV[3], tonumber(ARGV[4])

local state = redis.call('HMGET', KEYS[3], 'dur', 'dev', 'front')
if lease ~= '' then
  if redis.call('ZREM', KEYS[4], lease) == 0 then return 0 end
  local took = math.max(0, now - tonumber(string.match(lease, '^(%d+):')))
  learn_duration(KEYS[3], tonumber(state[1]), tonumber(state[2]), took)
elseif not redis.call('SET', KEYS[6], '1', 'NX', 'EX', 172800) then
  return 0
end

local prompt, completion = tonumber(ARGV[5]), tonumber(ARGV[6])
local reserved = tonumber(redis.call('HGET', KEYS[2], id))
if reserved then
  local used = prompt + completion
  local at = tonumber(redis.call('ZSCORE', KEYS[1], id))
  local front = tonumber(state[3]) or 0
  redis.call('HSET', KEYS[2], id, used)
  redis.call('HINCRBY', KEYS[3], 'sum', used - reserved)
  if at and at > front - window then redis.call('HINCRBY', KEYS[3], 'fsum', used - reserved) end
end

local usage = KEYS[5]
local function count(what, by)
  if by > 0 then return redis.call('HINCRBY', usage, what, by) end
end
if count('requests', 1) == 1 then redis.call('EXPIRE', usage, 34560000) end -- 400 days
count('prompt_tokens', prompt)
count('completion_tokens', completion)
count('cached_tokens', tonumber(ARGV[7]))
count(ARGV[8], 1)
return 1
