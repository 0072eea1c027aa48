-- Drops what has served its time: usage records that are old and that every consumer group has acknowledged, and the marks
-- of requests declared lost whose gateway will not come back.
--
-- KEYS  1 records  2 lost  3 trimmed
-- ARGV  1 test clock or ''  2 how long records are kept, us  3 the same of marks, us  4 '1': also those not acknowledged
-- Returns how many records were dropped.

--@include clock.lua

local now = clock(ARGV[1])

local marks = redis.call('HGETALL', KEYS[2])
for i = 1, #marks, 2 do
  if tonumber(string.match(marks[i + 1], '^%d+')) < now - tonumber(ARGV[3]) then redis.call('HDEL', KEYS[2], marks[i]) end
end

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
-- The first entry to keep.
local ms, seq = math.floor((now - tonumber(ARGV[2])) / 1000), 0
local function keep_from(id, after)
  local a, b = string.match(id, '^(%d+)-(%d+)$')
  a, b = tonumber(a), tonumber(b) + after
  if a < ms or (a == ms and b < seq) then ms, seq = a, b end
end
for _, flat in ipairs(ARGV[4] == '1' and {} or redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  keep_from(group['last-delivered-id'], 1)
  if group.pending > 0 then keep_from(redis.call('XPENDING', KEYS[1], group.name)[2], 0) end
end
if ms < 0 then return 0 end
-- '~': whole blocks of the stream, so a little more than that is kept.
local dropped = redis.call('XTRIM', KEYS[1], 'MINID', '~', whole(ms) .. '-' .. whole(seq))
if dropped > 0 then redis.call('SET', KEYS[3], whole(ms)) end
return dropped
