-- What Redis says of its memory, among it whether it may evict.   KEYS  1 any, to name a node of a cluster
return redis.call('INFO', 'memory')
