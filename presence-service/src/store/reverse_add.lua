-- Notes what a gateway has. Before the topics and users themselves, so that nothing of it is ever out of reach.
-- KEYS 1 entries of the boot: zset topic or session -> number  2 marker of a cleared boot
-- ARGV number, entry, number, entry ...
-- Returns 1, or 0 when the boot was cleared and nothing was noted.

if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
for i = 1, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'GT', ARGV[i], ARGV[i + 1])
end
return 1
