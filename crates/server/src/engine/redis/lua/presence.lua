-- Start of all scripts that change presence.
-- KEYS: 1 entries by client, 2 number of clients by user, 3 number of clients by lease.
-- An entry: generation (8 bytes), whether its leave is announced (1 byte), lease, user (each with 4 bytes of length), info.
local function decode(entry)
  local generation, announces, lease, user, at = struct.unpack('>I8BI4c0I4c0', entry)
  return generation, announces, lease, user, string.sub(entry, at)
end

local function count(key, field, difference)
  if redis.call('HINCRBY', key, field, difference) <= 0 then
    redis.call('HDEL', key, field)
    return 0
  end
  return 1
end
