-- Renews a lease. ARGV: 1 lease, 2 its duration in ms, 3 info, 4 '1' to begin the lease.
-- Returns whether the lease is valid.
local now = now_ms()
if ARGV[4] ~= '1' then
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if not ends or tonumber(ends) <= now then
    return 0
  end
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
