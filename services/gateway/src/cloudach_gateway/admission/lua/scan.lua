-- Some members of a set.   KEYS  1 set     ARGV  1 cursor  2 about how many     Returns {next cursor, {members}}
return redis.call('SSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
