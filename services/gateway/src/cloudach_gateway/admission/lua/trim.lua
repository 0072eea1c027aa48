-- Drops what has served its time: usage records that are old and that every consumer group has acknowledged, and the marks
-- of requests declared lost whose gateway will not come back.
--
-- ARG: scripts.Trimming. With ARG.unread '1' records go also if a group has not acknowledged them.
-- Returns how many records were dropped.

--@include clock.lua

local now = clock(ARG.clock)

local marks = redis.call('HGETALL', KEY.lost)
for i = 1, #marks, 2 do
  if tonumber(string.match(marks[i + 1], '^%d+')) < now - tonumber(ARG.keep_marks_us) then
    redis.call('HDEL', KEY.lost, marks[i])
  end
end

if redis.call('EXISTS', KEY.records) == 0 then return 0 end
-- The first entry to keep.
local ms, seq = math.floor((now - tonumber(ARG.keep_us)) / 1000), 0
local function keep_from(id, after)
  local a, b = string.match(id, '^(%d+)-(%d+)$')
  a, b = tonumber(a), tonumber(b) + after
  if a < ms or (a == ms and b < seq) then ms, seq = a, b end
end
for _, flat in ipairs(ARG.unread == '1' and {} or redis.call('XINFO', 'GROUPS', KEY.records)) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  keep_from(group['last-delivered-id'], 1)
  if group.pending > 0 then keep_from(redis.call('XPENDING', KEY.records, group.name)[2], 0) end
end
if ms < 0 then return 0 end
-- '~' drops whole blocks of the stream, so a little more than that is kept.
local dropped = redis.call('XTRIM', KEY.records, 'MINID', '~', whole(ms) .. '-' .. whole(seq))
if dropped > 0 then redis.call('SET', KEY.trimmed, whole(ms)) end
return dropped
