-- Start of all scripts about the leases of nodes.
-- KEYS: 1 leases by the end of their validity, 2 info by lease, 3 leases that have ended, with the time until which a node
-- removes their presence entries.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function finish(lease)
  redis.call('HSET', KEYS[3], lease, '0')
  redis.call('ZREM', KEYS[1], lease)
  redis.call('HDEL', KEYS[2], lease)
end
