-- Renews the leases of one key's running requests. One that was settled meanwhile stays gone.
--
-- KEYS  1 leases     ARGV  1 test clock or ''  2 lease ttl us  3… leases

--@include clock.lua

local now = clock(ARGV[1])
local till = whole(now + tonumber(ARGV[2]))
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], 'XX', till, ARGV[i]) end
-- What a killed gateway left: not counted since its lease ended, forgotten after a day.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(now - 86400000000))
redis.call('PEXPIRE', KEYS[1], 172800000)
return #ARGV - 2
