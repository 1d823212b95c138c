-- Adds a gateway to a topic or removes it, unless a newer operation came first.
-- KEYS 1 topic: hash boot -> number
-- ARGV 1 'attach' or 'detach'  2 boot  3 number
-- Returns nothing of use.

local stored = redis.call('HGET', KEYS[1], ARGV[2])
if stored and tonumber(stored) >= tonumber(ARGV[3]) then
  return 0
end
if ARGV[1] == 'attach' then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
else
  redis.call('HDEL', KEYS[1], ARGV[2])
end
return 1
