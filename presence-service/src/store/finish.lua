-- Users were checked, or stored.
-- KEYS 1 due  2 claimed
-- ARGV user, instant of the next check or 0, ...
-- Returns nothing of use.

for i = 1, #ARGV, 2 do
  redis.call('ZREM', KEYS[2], ARGV[i])
  if ARGV[i + 1] ~= '0' then
    redis.call('ZADD', KEYS[1], 'LT', ARGV[i + 1], ARGV[i])
  end
end
return 1
