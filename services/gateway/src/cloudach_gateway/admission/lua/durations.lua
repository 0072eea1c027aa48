-- How long a key's streams take: a mean and a deviation, smoothed like TCP's round-trip time. streams.lua reads them.
local function learn_duration(dur, dev, us)
  local first = not dur
  if first then
    dur, dev = us, us / 2
  else
    dev = dev + (math.abs(us - dur) - dev) / 4
    dur = dur + (us - dur) / 8
  end
  redis.call('HSET', KEY.state, 'dur', whole(dur), 'dev', whole(dev))
  if first then redis.call('PEXPIRE', KEY.state, 86400000) end
end
