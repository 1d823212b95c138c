-- Prolongs a gateway's lease.
-- KEYS 1 leases: zset boot -> instant at which the lease expires
--      2 numbers: hash boot -> number of its last renewal
--      3 clearing: zset boot -> last sign of life, of those whose entries are being removed
--      4 cleared: zset boot -> instant at which a sweeper took it for dead
--      5 epoch
-- ARGV 1 boot  2 number  3 lease in ms  4 how long cleared boots are remembered, in ms  5 random part of a new epoch
-- Returns {standing, epoch, how many gateways hold a live lease}.

local boot, number, lease, remember = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()
local current, fresh = epoch(KEYS[5], ARGV[5], now)
local function answer(standing)
  -- A lease that has run out counts no longer, whether or not a sweeper has been there.
  return {standing, current, redis.call('ZCOUNT', KEYS[1], '(' .. text(now), '+inf')}
end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', text(now - remember))
if redis.call('ZSCORE', KEYS[4], boot) then
  return answer('cleared')
end
-- It is leaving: nothing new may begin under a name whose entries are being removed.
if redis.call('ZSCORE', KEYS[3], boot) then
  return answer('expired')
end
local stored = redis.call('HGET', KEYS[2], boot)
local expiry = tonumber(redis.call('ZSCORE', KEYS[1], boot) or '0')
local standing = 'alive'
if fresh or not stored or expiry <= now then
  standing = 'expired'
end
if not stored or number > tonumber(stored) then
  redis.call('ZADD', KEYS[1], text(now + lease), boot)
  redis.call('HSET', KEYS[2], boot, ARGV[2])
end
return answer(standing)
