-- Returns the lineage of this server: what the epochs of its streams depend on.
-- KEYS: 1 the lineage that was stored. ARGV: 1 replication id of this server, 2 '1' if this server has all that was stored
-- before its restart.
local known = redis.call('HMGET', KEYS[1], 'lineage', 'replid')
if known[1] and known[2] == ARGV[1] then
  return known[1]
end
local lineage = ARGV[1]
if known[1] and ARGV[2] == '1' then
  lineage = known[1]
end
redis.call('HSET', KEYS[1], 'lineage', lineage, 'replid', ARGV[1])
return lineage
