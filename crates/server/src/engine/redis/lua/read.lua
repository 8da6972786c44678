-- Reads a part of a stream.
-- ARGV: 6 exclusive start or empty, 7 maximum number, 8 '1' to read from the newest, 9 time to live of publications in ms.
-- Returns {'r', epoch, newest offset, offset of the first publication below, publications in ascending order} or
-- {'l', lineage}.
local stream, has_changed = open()
if not stream then
  return {'l', has_changed}
end
if has_changed then
  store(stream)
end
redis.call('PEXPIRE', state_key, ARGV[5])

local len = redis.call('LLEN', list_key)
local limit = tonumber(ARGV[7])
if len == 0 or limit == 0 then
  return {'r', stream.epoch, text(stream.top), '0', {}}
end
local expired_before = now_ms() - tonumber(ARGV[9])
local expired_bytes = 0
while len > 0 do
  local oldest = redis.call('LINDEX', list_key, 0)
  if struct.unpack('>I8', oldest) > expired_before then
    break
  end
  redis.call('LPOP', list_key)
  expired_bytes = expired_bytes + #oldest
  len = len - 1
end
if expired_bytes > 0 then
  redis.call('HINCRBY', state_key, 'b', text(-expired_bytes))
end
local first = stream.top - len + 1
local from, to = first, stream.top
if ARGV[8] == '1' then
  if ARGV[6] ~= '' then
    to = math.min(to, tonumber(ARGV[6]) - 1)
  end
  from = math.max(from, to - limit + 1)
else
  if ARGV[6] ~= '' then
    from = math.max(from, tonumber(ARGV[6]) + 1)
  end
  to = math.min(to, from + limit - 1)
end
if from > to then
  return {'r', stream.epoch, text(stream.top), '0', {}}
end
local items = redis.call('LRANGE', list_key, from - first, to - first)
return {'r', stream.epoch, text(stream.top), text(from), items}
