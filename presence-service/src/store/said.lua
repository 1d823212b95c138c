-- A transition was published: nobody needs to repeat it.
-- KEYS 1 user
-- ARGV 1 version of the transition
-- Returns nothing of use.

if redis.call('HGET', KEYS[1], 'version') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'unsaid')
end
return 1
