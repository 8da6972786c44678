-- Returns leases that have ended, and whose presence entries the caller is to remove within some time.
-- ARGV: 1 duration of a lease in ms, 2 time for the removal in ms.
local now = now_ms()
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))) do
  finish(lease)
end
-- The clock of this server may have been set back, or the server before it had another time.
local latest = now + tonumber(ARGV[1])
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', latest), '+inf')) do
  redis.call('ZADD', KEYS[1], latest, lease)
end
local mine = {}
local ended = redis.call('HGETALL', KEYS[3])
for index = 1, #ended, 2 do
  local until_ms = tonumber(ended[index + 1])
  if until_ms <= now or until_ms > now + tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[3], ended[index], string.format('%.0f', now + tonumber(ARGV[2])))
    mine[#mine + 1] = ended[index]
  end
end
return mine
