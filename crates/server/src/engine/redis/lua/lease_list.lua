-- Returns the valid leases and their infos, alternately.
local leases = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now_ms()), '+inf')
local list = {}
for _, lease in ipairs(leases) do
  list[#list + 1] = lease
  list[#list + 1] = redis.call('HGET', KEYS[2], lease) or ''
end
return list
