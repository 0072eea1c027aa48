-- The end of a request: its lease, its real tokens in the window, the totals of the day, its usage record.
--
-- This happens once for each request, and the lease is the ticket. A request that was admitted without Redis has no lease
-- and leaves a mark instead. If it is in doubt whether Redis admitted it too, its lease ends with it. Of a request that
-- was declared lost too early (renew.lua), only what that record has not said is booked. A request in doubt that was
-- refused in the end is `withdrawn`: its lease and its reservation go, and nothing is booked.
--
-- ARG: grants.Settlement, beside the clock and the window. ARG.lease is '' without one, and '?' in doubt. KEY.settled is
-- passed only for those two.
-- Returns 1 if this call settled the request, 0 if it was settled before.

--@include clock.lua
--@include durations.lua
--@include book.lua

local function lease_of(id)
  local ending = ':' .. id
  for _, names in ipairs({redis.call('ZRANGE', KEY.leases, 0, -1), redis.call('HKEYS', KEY.lost)}) do
    for i = 1, #names do
      if string.sub(names[i], -#ending) == ending then return names[i] end
    end
  end
  return ''
end

local now, id = clock(ARG.clock), ARG.request_id
local lease, before = ARG.lease, false
local state = redis.call('HMGET', KEY.state, 'dur', 'dev', 'front')
local withdrawn = ARG.outcome == 'withdrawn'
if withdrawn then
  lease = lease_of(id)
  if lease == '' then return 0 end
elseif lease == '' or lease == '?' then
  if not redis.call('SET', KEY.settled, '1', 'NX', 'EX', 172800) then return 0 end
  if lease == '?' then lease = lease_of(id) end
end
if lease ~= '' then
  before = redis.call('HGET', KEY.lost, lease)
  if redis.call('ZREM', KEY.leases, lease) == 1 then
    local took = math.max(0, now - tonumber(string.match(lease, '^(%d+):')))
    if not withdrawn then learn_duration(tonumber(state[1]), tonumber(state[2]), took) end
  elseif not before then
    return 0
  end
  redis.call('HDEL', KEY.running, lease)
  --[[@ended]]
  if before then redis.call('HDEL', KEY.lost, lease) end
end

local prompt, completion = tonumber(ARG.prompt_tokens), tonumber(ARG.completion_tokens)
local used = tonumber(ARG.window_tokens) or prompt + completion
local front = tonumber(state[3]) or 0
--[[@booked]]
if withdrawn then return 1 end
book(now, {
  id = id, model = ARG.model, route = ARG.route,
  prompt = prompt, completion = completion, cached = tonumber(ARG.cached_tokens),
  ttft = ARG.ttft_ms, duration = ARG.duration_ms, outcome = ARG.outcome, failovers = tonumber(ARG.failovers),
}, before)
return 1
