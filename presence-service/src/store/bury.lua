-- Takes the gateways whose lease has expired for dead. One that renewed meanwhile is not among them: this is the check.
-- KEYS 1 leases  2 numbers  3 clearing  4 cleared
-- ARGV 1 lease in ms
-- Returns boot, last sign of life, and 1 when it was taken for dead or 0 when it left, for each one to clear.

local now, lease = now_ms(), tonumber(ARGV[1])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'WITHSCORES')
for i = 1, #dead, 2 do
  local boot = dead[i]
  redis.call('ZREM', KEYS[1], boot)
  redis.call('HDEL', KEYS[2], boot)
  redis.call('ZADD', KEYS[3], text(tonumber(dead[i + 1]) - lease), boot)
  redis.call('ZADD', KEYS[4], text(now), boot)
end
local answer = {}
local clearing = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
for i = 1, #clearing, 2 do
  answer[#answer + 1] = clearing[i]
  answer[#answer + 1] = clearing[i + 1]
  answer[#answer + 1] = redis.call('ZSCORE', KEYS[4], clearing[i]) and '1' or '0'
end
return answer
