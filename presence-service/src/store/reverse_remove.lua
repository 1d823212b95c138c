-- Forgets what a gateway no longer has, unless a newer operation noted it again.
-- KEYS 1 entries of the boot
-- ARGV number, entry, number, entry ...
-- Returns nothing of use.

for i = 1, #ARGV, 2 do
  local stored = redis.call('ZSCORE', KEYS[1], ARGV[i + 1])
  if stored and tonumber(stored) < tonumber(ARGV[i]) then
    redis.call('ZREM', KEYS[1], ARGV[i + 1])
  end
end
return 1
