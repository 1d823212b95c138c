-- Sees to it that a gateway that registers has a lease, so that a sweeper finds its entries whatever happens to it.
-- KEYS 1 leases  2 clearing  3 cleared
-- ARGV 1 boot  2 lease in ms
-- Returns {'ok' | 'cleared' | 'left', then boot and last sign of life of each gateway that is being cleared}.

local boot = ARGV[1]
local now = now_ms()
local answer = {'ok'}
if redis.call('ZSCORE', KEYS[3], boot) then
  answer[1] = 'cleared'
elseif redis.call('ZSCORE', KEYS[2], boot) then
  answer[1] = 'left'
else
  -- Not a renewal: its first one still answers that there was none.
  redis.call('ZADD', KEYS[1], 'NX', text(now + tonumber(ARGV[2])), boot)
end
for _, value in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')) do
  answer[#answer + 1] = value
end
return answer
