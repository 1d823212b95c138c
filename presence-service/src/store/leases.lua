-- What a lookup needs beside the members of its topics.
-- KEYS 1 leases  2 epoch
-- ARGV 1 random part of a new epoch  2 how long a new epoch cannot answer, in ms
-- Returns {1 when the directory cannot answer yet, then the boots whose lease is alive}.

local now = now_ms()
local current = epoch(KEYS[2], ARGV[1], now)
local made = tonumber(string.match(current, ':(%d+)$') or '0')
local answer = {now - made < tonumber(ARGV[2]) and 1 or 0}
for _, boot in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf')) do
  answer[#answer + 1] = boot
end
return answer
