-- Returns what Redis says of its memory, among it its eviction policy. KEYS: any key, which names a node of a cluster.
return redis.call('INFO', 'memory')
