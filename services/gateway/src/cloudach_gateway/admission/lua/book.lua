-- The end of a request on the books: its tokens in the window, in the totals of the day, and as one usage record.
-- docs/usage.md has the record's fields. `front` is the window's, as window.lua keeps it in `state`.

-- Puts the tokens that were used in the place of those that were reserved.
local function correct(id, used, front)
  local reserved = tonumber(redis.call('HGET', KEY.cost, id))
  if not reserved then return end
  local at = tonumber(redis.call('ZSCORE', KEY.log, id))
  redis.call('HSET', KEY.cost, id, used)
  redis.call('HINCRBY', KEY.state, 'sum', used - reserved)
  if at and at > front - tonumber(ARG.window_us) then redis.call('HINCRBY', KEY.state, 'fsum', used - reserved) end
end

-- r: what to write. before: false, or what the records of this request have said already, because it was declared lost:
-- "<at us> <parts> <prompt> <completion> <cached>". Then this record is a further part, and has the difference.
local function book(now, r, before)
  local part, prompt, completion, cached = 0, r.prompt, r.completion, r.cached
  if before then
    local parts, p, c, h = string.match(before, '^%d+ (%d+) (%d+) (%d+) (%d+)$')
    part, prompt, completion, cached = tonumber(parts), prompt - p, completion - c, cached - h
  end
  local function count(what, by)
    if by ~= 0 then return redis.call('HINCRBY', KEY.usage, what, by) end
  end
  if part > 0 then count('lost', -1) end
  if part > 0 or count('requests', 1) == 1 then -- the key's first request of the day
    redis.call('SADD', KEY.used, ARG.key_id)
    redis.call('EXPIRE', KEY.usage, 34560000) -- 400 days
    redis.call('EXPIRE', KEY.used, 34560000)
    -- The group exists from the first record on, so billing misses nothing, whenever it begins to read.
    if redis.call('EXISTS', KEY.records) == 0 then
      redis.call('XGROUP', 'CREATE', KEY.records, 'billing', '0', 'MKSTREAM')
    end
  end
  count('prompt_tokens', prompt)
  count('completion_tokens', completion)
  count('cached_tokens', cached)
  count('failovers', r.failovers)
  count(r.outcome, 1)
  redis.call('XADD', KEY.records, '*', 'v', 1, 'id', r.id, 'part', part, 'tenant', ARG.tenant, 'key', ARG.key_id,
    'model', r.model, 'route', r.route, 'prompt_tokens', prompt, 'completion_tokens', completion, 'cached_tokens', cached,
    'ttft_ms', r.ttft, 'duration_ms', r.duration, 'outcome', r.outcome, 'failovers', r.failovers, 'day', ARG.day,
    'at_ms', whole(math.floor(now / 1000)))
  return part
end
