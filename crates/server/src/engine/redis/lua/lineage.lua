-- Returns the lineage of this server: what the epochs of its streams depend on. It is stored with the data, with what was
-- known about the server when a node connected to it.
-- KEYS: 1 the lineage that was stored. ARGV: 1 replication id of this server, 2 '1' if this server syncs each write, 3 its run
-- id, 4 '1' if this process was a replica before.
local known = redis.call('HMGET', KEYS[1], 'lineage', 'replid', 'runid', 'syncs')
local is_same = known[2] == ARGV[1]
if known[1] and is_same and known[3] == ARGV[3] and known[4] == ARGV[2] then
  return known[1]
end
-- The replication id changes without a restart when the first replica connects, and when the last one has been away for long.
local is_running = ARGV[3] ~= '' and known[3] == ARGV[3] and ARGV[4] == '0'
-- After a restart, it matters what the server did before.
local has_all = ARGV[2] == '1' and known[4] == '1' and ARGV[4] == '0'
local lineage = ARGV[1]
if known[1] and (is_same or is_running or has_all) then
  lineage = known[1]
end
redis.call('HSET', KEYS[1], 'lineage', lineage, 'replid', ARGV[1], 'runid', ARGV[3], 'syncs', ARGV[2])
return lineage
