-- Takes users whose check is due, or whose last sign of life is to be stored; each goes to one caller. What a caller
-- did not finish comes back.
-- KEYS 1 due: zset user -> instant  2 claimed: zset user -> instant of the claim
-- ARGV 1 how many at most  2 after how many ms a claim is given up
-- Returns the users.

local now, limit = now_ms(), tonumber(ARGV[1])
local stale = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now - tonumber(ARGV[2])), 'LIMIT', 0, limit)
for _, user in ipairs(stale) do
  redis.call('ZREM', KEYS[2], user)
  redis.call('ZADD', KEYS[1], 'LT', text(now), user)
end
local users = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, limit)
for _, user in ipairs(users) do
  redis.call('ZREM', KEYS[1], user)
  redis.call('ZADD', KEYS[2], text(now), user)
end
return users
