-- A gateway leaves by itself: its lease goes now, its entries are to be removed.
-- KEYS 1 leases  2 numbers  3 clearing
-- ARGV 1 boot
-- Returns the instant, from which the grace of its sessions is counted.

local now = now_ms()
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
-- NX: when it is being cleared already, its last sign of life stands.
redis.call('ZADD', KEYS[3], 'NX', text(now), ARGV[1])
return now
