-- Notes that users are to be checked. Written before the change that makes it necessary, so that a crash in between
-- costs a needless check and never a user who stays online for ever.
-- KEYS 1 due: zset user -> instant
-- ARGV 1 delay in ms  2 ... users
-- Returns nothing of use.

local due = text(now_ms() + tonumber(ARGV[1]))
for i = 2, #ARGV do
  -- LT: an earlier check stands; it finds out itself when to come back.
  redis.call('ZADD', KEYS[1], 'LT', due, ARGV[i])
end
return 1
