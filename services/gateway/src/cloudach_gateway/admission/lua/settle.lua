-- The end of a request: its lease, its real tokens in the window, the totals of the day, its usage record. Once for each
-- request: the lease is the ticket, and a request that was admitted without Redis leaves a mark instead; if it is in doubt
-- whether this admitted it, too, its lease ends with it. Of a request that
-- was declared lost too early (renew.lua), what that has not said yet is booked. One in doubt that was refused in the end is
-- `withdrawn`: lease and reservation go, and nothing is booked.
--
-- KEYS  1 log  2 cost  3 state  4 leases  5 running  6 lost  7 usage of the day  8 keys used that day  9 records
--       10 guided  11 settled mark, without a lease
-- ARGV  1 test clock or ''  2 request id  3 lease, '' or '?'  4 window us  5 prompt  6 completion  7 cached tokens  8 outcome
--       9 tenant  10 key  11 model  12 route  13 ttft ms or ''  14 duration ms  15 failovers  16 day, yyyymmdd
--       17 tokens that count in the window, or '' for those billed
-- Returns 1 if this call settled it, 0 if it was settled before.

--@include clock.lua
--@include streams.lua
--@include book.lua

local function lease_of(id)
  local ending = ':' .. id
  for _, names in ipairs({redis.call('ZRANGE', KEYS[4], 0, -1), redis.call('HKEYS', KEYS[6])}) do
    for i = 1, #names do
      if string.sub(names[i], -#ending) == ending then return names[i] end
    end
  end
  return ''
end

local now = clock(ARGV[1])
local lease, before = ARGV[3], false
local k = {
  log = KEYS[1], cost = KEYS[2], state = KEYS[3], usage = KEYS[7], used = KEYS[8], records = KEYS[9],
}

local state = redis.call('HMGET', k.state, 'dur', 'dev', 'front')
local withdrawn = ARGV[8] == 'withdrawn'
if withdrawn then
  lease = lease_of(ARGV[2])
  if lease == '' then return 0 end
elseif lease == '' or lease == '?' then
  if not redis.call('SET', KEYS[11], '1', 'NX', 'EX', 172800) then return 0 end
  if lease == '?' then lease = lease_of(ARGV[2]) end
end
if lease ~= '' then
  before = redis.call('HGET', KEYS[6], lease)
  if redis.call('ZREM', KEYS[4], lease) == 1 then
    local took = math.max(0, now - tonumber(string.match(lease, '^(%d+):')))
    if not withdrawn then learn_duration(k.state, tonumber(state[1]), tonumber(state[2]), took) end
  elseif not before then
    return 0
  end
  redis.call('HDEL', KEYS[5], lease)
  redis.call('ZREM', KEYS[10], lease)
  if before then redis.call('HDEL', KEYS[6], lease) end
end

local done = {
  id = ARGV[2], tenant = ARGV[9], key = ARGV[10], model = ARGV[11], route = ARGV[12],
  prompt = tonumber(ARGV[5]), completion = tonumber(ARGV[6]), cached = tonumber(ARGV[7]),
  ttft = ARGV[13], duration = ARGV[14], outcome = ARGV[8], failovers = tonumber(ARGV[15]), day = ARGV[16],
}
correct(k, tonumber(ARGV[4]), tonumber(state[3]) or 0, done.id, tonumber(ARGV[17]) or done.prompt + done.completion)
if withdrawn then return 1 end
book(k, now, done, before)
return 1
