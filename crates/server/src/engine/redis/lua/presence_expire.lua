-- Removes all entries of a lease from a channel, and announces the leaves.
-- ARGV: 1 lease, 2 SPUBLISH or PUBLISH, 3 pub/sub channel.
-- Returns the number of removed entries.
local removed = 0
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
  return removed
end
local entries = redis.call('HGETALL', KEYS[1])
for index = 1, #entries, 2 do
  local _, announces, lease, user, info = decode(entries[index + 1])
  if lease == ARGV[1] then
    redis.call('HDEL', KEYS[1], entries[index])
    count(KEYS[2], user, -1)
    if announces == 1 then
      redis.call(ARGV[2], ARGV[3], 'l' .. info)
    end
    removed = removed + 1
  end
end
redis.call('HDEL', KEYS[3], ARGV[1])
return removed
