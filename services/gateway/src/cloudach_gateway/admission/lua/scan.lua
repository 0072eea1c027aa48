-- Returns some members of a set, as {next cursor, {members}}. KEYS: the set. ARGV: the cursor, and about how many.
return redis.call('SSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
