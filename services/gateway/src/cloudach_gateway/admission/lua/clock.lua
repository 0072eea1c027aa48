-- Returns Redis' own clock, in us. Only tests name a time, to check the windows against a model.
local function clock(named)
  if named ~= '' then return tonumber(named) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- Numbers go to Redis as whole decimals, because Lua would write 1.7638e+15.
local function whole(x) return string.format('%.0f', x) end
