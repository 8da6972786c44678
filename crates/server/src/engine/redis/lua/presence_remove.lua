-- Removes an entry, unless there is one of a later generation.
-- ARGV: 1 client, 2 generation.
-- Returns a lease that has no entries in this channel any more, or an empty string.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  local generation, _, lease, user = decode(known)
  if generation <= tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[1], ARGV[1])
    count(KEYS[2], user, -1)
    if count(KEYS[3], lease, -1) == 0 then
      return lease
    end
  end
end
return ''
