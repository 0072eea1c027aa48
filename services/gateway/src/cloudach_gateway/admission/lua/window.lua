-- Two exact sliding windows (requests, tokens) over one timeline, with promises.
--
-- The timeline (`log`) holds an entry for each admitted request and one for each promise. A promise is a place in the
-- future that a rejected request was told to come back for. Times are us of Redis' clock, all integers.
--
-- Invariant: in no window (t - W, t] do the entries exceed `rpm` in number or `tpm` in tokens reserved. Each admission is
-- accounted when it happened. But an admission that fills a promised place is accounted at the promise's due time, which
-- is at most 2 * grace earlier. So with no promise around, the limit is exact in real time. With promises, any
-- W - 2 * grace of real time hold at most the limit. Accounting a claim at its due time keeps every later promise true,
-- because nothing moves when a client comes a little late. Usage above a reservation is only known afterwards. It raises
-- the sum and delays the next requests, but breaks no promise.
--
-- A promise is appended at the first place that is free behind everything booked. A newcomer may pass the queue only if it
-- breaks no promise. A place not claimed within `grace` goes to the first newcomer that fits in it (accounted at the same
-- due time). After 2 * grace it is dropped. So callers that never come back cost only the throughput of one grace.
--
-- `state` keeps these, so that nothing is scanned while there is room:
--   at     the last time seen; `sum` covers entries up to it       sum    tokens in (at - W, at]
--   ahead  tokens of promises after `at`                           front  the latest place given out
--   fsum   tokens in (front - W, front]; equals sum when front <= at


-- s: those fields, as strings.
local function open_window(now, s, o)
  local w = {
    now = now, W = o.window, grace = math.min(o.grace, o.window), rpm = o.rpm, tpm = o.tpm, pending = o.pending,
    drop = math.min(2 * o.grace, o.window),
    at = tonumber(s[1]) or 0, sum = tonumber(s[2]) or 0, ahead = tonumber(s[3]) or 0,
    front = tonumber(s[4]) or 0, fsum = tonumber(s[5]) or 0,
  }
  if w.at - now > w.W then -- Redis' clock went back by more than a window, so what is booked means nothing
    redis.call('DEL', KEY.log, KEY.cost, KEY.promises, KEY.fingerprints, KEY.held)
    w.at, w.sum, w.ahead, w.front, w.fsum, w.pending = 0, 0, 0, 0, 0, 0
  end
  w.now = math.max(now, w.at)
  -- Lifetimes are renewed once a window, not with each request.
  w.renew = math.floor(w.now / w.W) ~= math.floor(w.at / w.W) or w.sum + w.ahead == 0
  return w
end

local function total(costs)
  local sum = 0
  for i = 1, #costs do sum = sum + (tonumber(costs[i]) or 0) end
  return sum
end

-- Drops a promise and its place, if it has one. Returns true if it held a stream.
local function forget(w, name, due)
  redis.call('ZREM', KEY.promises, name)
  redis.call('ZREM', KEY.fingerprints, name)
  w.pending = w.pending - 1
  if redis.call('ZREM', KEY.log, name) == 1 then
    if w.n then w.n = w.n - 1 end
    local cost = tonumber(redis.call('HGET', KEY.cost, name)) or 0
    redis.call('HDEL', KEY.cost, name)
    if due <= w.now then w.sum = w.sum - cost else w.ahead = w.ahead - cost end
    if due > w.front - w.W then w.fsum = w.fsum - cost end
  end
  return redis.call('ZREM', KEY.held, name) == 1
end

-- Moves the window to w.now. Returns for how many holds of a stream nobody came back.
local function advance(w)
  local lost = 0
  if w.pending > 0 then
    local due = redis.call('ZRANGEBYSCORE', KEY.promises, '(' .. whole(w.at), whole(w.now))
    for i = 1, #due do
      local cost = tonumber(redis.call('HGET', KEY.cost, due[i])) or 0
      w.sum, w.ahead = w.sum + cost, w.ahead - cost
    end
    local old = redis.call('ZRANGEBYSCORE', KEY.promises, '-inf', whole(w.now - w.drop), 'WITHSCORES')
    for i = 1, #old, 2 do
      if forget(w, old[i], tonumber(old[i + 1])) then lost = lost + 1 end
    end
  end
  repeat
    local gone = redis.call('ZRANGEBYSCORE', KEY.log, '-inf', whole(w.now - w.W), 'LIMIT', 0, 256)
    if #gone > 0 then
      w.sum = w.sum - total(redis.call('HMGET', KEY.cost, unpack(gone)))
      redis.call('HDEL', KEY.cost, unpack(gone))
      redis.call('ZREM', KEY.log, unpack(gone))
    end
  until #gone < 256
  w.n = redis.call('ZCARD', KEY.log)
  if w.n == 0 then w.sum, w.ahead, w.front, w.renew = 0, 0, 0, true end
  if w.front <= w.now then w.fsum = w.sum end
  w.at = w.now
  return lost
end

local function save(w)
  redis.call('HSET', KEY.state, 'at', whole(w.at), 'sum', whole(w.sum), 'ahead', whole(w.ahead), 'front', whole(w.front),
    'fsum', whole(w.fsum))
  if not (w.renew or w.pending > 0) then return end
  local life = whole(math.ceil((math.max(w.front, w.now) - w.now + 4 * w.W) / 1000) + 1000)
  redis.call('PEXPIRE', KEY.log, life)
  redis.call('PEXPIRE', KEY.cost, life)
  redis.call('PEXPIRE', KEY.state, 86400000) -- outlives the log for the sake of the stream durations
  if w.pending > 0 then
    redis.call('PEXPIRE', KEY.promises, life)
    redis.call('PEXPIRE', KEY.fingerprints, life)
    redis.call('PEXPIRE', KEY.held, life)
  end
end

-- Starts from a window that ends at `from` and holds `sum` tokens. Returns the first time >= t at which `cost` more fit,
-- and what the window that ends then holds. Entries leave in order, so each is passed once as the front moves on.
local function first_fit(w, from, sum, t, cost)
  local rank = redis.call('ZCOUNT', KEY.log, '-inf', whole(from - w.W))
  while true do
    local batch = redis.call('ZRANGE', KEY.log, rank, rank + 63, 'WITHSCORES')
    if #batch == 0 then return t, sum end
    local names = {}
    for i = 1, #batch, 2 do names[#names + 1] = batch[i] end
    local costs = redis.call('HMGET', KEY.cost, unpack(names))
    for i = 1, #names do
      local score = tonumber(batch[2 * i])
      if score > t - w.W and sum + cost <= (w.tpm or math.huge) then return t, sum end
      sum = sum - (tonumber(costs[i]) or 0)
      if score + w.W > t then t = score + w.W end
    end
    rank = rank + 64
  end
end

-- Returns the first free place behind everything booked, not before `t`.
local function next_place(w, cost, t)
  t = math.max(t, w.now, w.front)
  if w.rpm then
    local last = redis.call('ZREVRANGE', KEY.log, w.rpm - 1, w.rpm - 1, 'WITHSCORES')
    if last[2] then t = math.max(t, tonumber(last[2]) + w.W) end
  end
  if w.tpm then t = first_fit(w, math.max(w.front, w.now), w.fsum, t, cost) end
  return t
end

local function add(w, name, t, cost)
  if w.tpm and t > math.max(w.front, w.now) then
    local _, sum = first_fit(w, math.max(w.front, w.now), w.fsum, t, -math.huge)
    w.fsum = sum
  end
  redis.call('ZADD', KEY.log, whole(t), name)
  if w.tpm then
    redis.call('HSET', KEY.cost, name, cost)
    if t <= w.now then w.sum = w.sum + cost else w.ahead = w.ahead + cost end
    if t > math.max(w.front, w.now) - w.W then w.fsum = w.fsum + cost end
  end
  w.n = w.n + 1
  w.front = math.max(w.front, t)
end

local function everything_fits(w, cost)
  return not (w.rpm and w.n + 1 > w.rpm) and not (w.tpm and w.sum + w.ahead + cost > w.tpm)
end

-- Returns nil if a request fits at w.now and breaks no promise, and otherwise the limit that is in the way. Only windows
-- that end now or at a promise's due time need looking at, because between them nothing enters.
local function obstacle(w, cost)
  local now = w.now
  if everything_fits(w, cost) then return nil end
  if w.front <= now then
    if w.rpm and w.n + 1 > w.rpm then return 'requests' end
    return 'tokens'
  end
  local ahead = redis.call('ZRANGEBYSCORE', KEY.promises, '(' .. whole(now), '(' .. whole(now + w.W), 'WITHSCORES')
  if w.rpm and w.n + 1 > w.rpm then
    if redis.call('ZCOUNT', KEY.log, '-inf', whole(now)) + 1 > w.rpm then return 'requests' end
    for i = 2, #ahead, 2 do
      local due = tonumber(ahead[i])
      if redis.call('ZCOUNT', KEY.log, '(' .. whole(due - w.W), whole(due)) + 1 > w.rpm then return 'requests' end
    end
  end
  if not w.tpm then return nil end
  local room = w.tpm - cost
  if w.sum > room then return 'tokens' end
  if w.front < now + w.W and w.fsum > room then return 'tokens' end
  local sum, rank, past = w.sum, 0, {}
  local at = 1
  for i = 1, #ahead, 2 do
    local due = tonumber(ahead[i + 1])
    sum = sum + (tonumber(redis.call('HGET', KEY.cost, ahead[i])) or 0)
    while true do
      if at > #past then
        past, at = redis.call('ZRANGE', KEY.log, rank, rank + 63, 'WITHSCORES'), 1
        rank = rank + 64
        if #past == 0 then break end
      end
      if tonumber(past[at + 1]) > due - w.W then break end
      sum = sum - (tonumber(redis.call('HGET', KEY.cost, past[at])) or 0)
      at = at + 2
    end
    if sum > room then return 'tokens' end
  end
  return nil
end

-- Turns a promise into the admitted entry `name`, accounted at the promise's due time.
local function claim(w, promise, due, name, cost)
  local held = forget(w, promise, due)
  add(w, name, due, cost)
  return held
end

-- Returns the oldest place that its owner left for longer than grace and in which `cost` fits.
local function abandoned(w, cost)
  local found = redis.call('ZRANGEBYSCORE', KEY.promises, '-inf', whole(w.now - w.grace), 'WITHSCORES', 'LIMIT', 0, 32)
  for i = 1, #found, 2 do
    local large = not w.tpm or (tonumber(redis.call('HGET', KEY.cost, found[i])) or 0) >= cost
    if large and redis.call('ZSCORE', KEY.log, found[i]) then
      return found[i], tonumber(found[i + 1])
    end
  end
end

-- Makes a promise: with a place in the windows if `book`, and with a stream if `hold`.
local function promise(w, name, due, cost, book, hold)
  if book then add(w, name, due, cost) end
  redis.call('ZADD', KEY.promises, whole(due), name)
  redis.call('ZADD', KEY.fingerprints, 0, name)
  if hold then redis.call('ZADD', KEY.held, whole(due), name) end
  w.pending = w.pending + 1
end

-- Returns name and due time of the earliest promise to a fingerprint, or of the latest one.
local function own_promise(w, fingerprint, latest)
  if w.pending == 0 then return nil end
  local from, to = '[' .. fingerprint .. ':', '(' .. fingerprint .. ';'
  local found
  if latest then
    found = redis.call('ZREVRANGEBYLEX', KEY.fingerprints, to, from, 'LIMIT', 0, 1)
  else
    found = redis.call('ZRANGEBYLEX', KEY.fingerprints, from, to, 'LIMIT', 0, 1)
  end
  if found[1] then return found[1], tonumber(string.match(found[1], '^[^:]*:(%d+):')) end
end
