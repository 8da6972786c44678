-- Adds or replaces an entry, unless there is one of a later generation.
-- ARGV: 1 client, 2 entry, 3 generation, 4 lease, 5 user.
-- Returns a lease that has no entries in this channel any more, or an empty string.
local left = ''
local known = redis.call('HGET', KEYS[1], ARGV[1])
local known_lease, known_user, _
if known then
  local generation
  generation, _, known_lease, known_user = decode(known)
  if generation > tonumber(ARGV[3]) then
    return left
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if known_user ~= ARGV[5] then
  count(KEYS[2], ARGV[5], 1)
  if known_user then
    count(KEYS[2], known_user, -1)
  end
end
if known_lease ~= ARGV[4] then
  count(KEYS[3], ARGV[4], 1)
  if known_lease and count(KEYS[3], known_lease, -1) == 0 then
    left = known_lease
  end
end
return left
