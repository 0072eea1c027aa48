-- The end of a request on the books: its tokens in the window, in the totals of the day, and as one usage record
-- (docs/usage.md has the record's fields).

-- What was reserved becomes what was used. k: log, cost, state; front: of the window, as in `state`.
local function correct(k, window, front, id, used)
  local reserved = tonumber(redis.call('HGET', k.cost, id))
  if not reserved then return end
  local at = tonumber(redis.call('ZSCORE', k.log, id))
  redis.call('HSET', k.cost, id, used)
  redis.call('HINCRBY', k.state, 'sum', used - reserved)
  if at and at > front - window then redis.call('HINCRBY', k.state, 'fsum', used - reserved) end
end

-- k: usage, used, records. r: the record. before: false, or what the records of this request, which was declared lost,
-- have said already: "<at us> <parts> <prompt> <completion> <cached>". Then this one is a further part: the difference.
local function book(k, now, r, before)
  local part, prompt, completion, cached = 0, r.prompt, r.completion, r.cached
  if before then
    local parts, p, c, h = string.match(before, '^%d+ (%d+) (%d+) (%d+) (%d+)$')
    part, prompt, completion, cached = tonumber(parts), prompt - p, completion - c, cached - h
  end
  local function count(what, by)
    if by ~= 0 then return redis.call('HINCRBY', k.usage, what, by) end
  end
  if part > 0 then count('lost', -1) end
  if part > 0 or count('requests', 1) == 1 then -- the key's first of the day
    redis.call('SADD', k.used, r.key)
    redis.call('EXPIRE', k.usage, 34560000) -- 400 days
    redis.call('EXPIRE', k.used, 34560000)
    -- From the first record on: billing misses nothing, whenever it begins to read.
    if redis.call('EXISTS', k.records) == 0 then redis.call('XGROUP', 'CREATE', k.records, 'billing', '0', 'MKSTREAM') end
  end
  count('prompt_tokens', prompt)
  count('completion_tokens', completion)
  count('cached_tokens', cached)
  count('failovers', r.failovers)
  count(r.outcome, 1)
  redis.call('XADD', k.records, '*', 'v', 1, 'id', r.id, 'part', part, 'tenant', r.tenant, 'key', r.key,
    'model', r.model, 'route', r.route, 'prompt_tokens', prompt, 'completion_tokens', completion, 'cached_tokens', cached,
    'ttft_ms', r.ttft, 'duration_ms', r.duration, 'outcome', r.outcome, 'failovers', r.failovers, 'day', r.day,
    'at_ms', whole(math.floor(now / 1000)))
  return part
end
