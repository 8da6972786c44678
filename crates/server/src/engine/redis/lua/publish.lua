-- Numbers, stores and sends a publication.
-- KEYS: 3 state of the idempotency key, if there is one.
-- ARGV: 6 SPUBLISH or PUBLISH, 7 pub/sub channel, 8 time and payload, 9 maximum number of publications, 10 maximum size,
-- 11 their time to live in ms, 12 version (20 digits) or empty, 13 its epoch, 14 time to live of the key in ms.
-- Returns {'p' published | 'd' duplicate | 's' suppressed, epoch, offset} or {'l', lineage}.
if KEYS[3] then
  local first = redis.call('GET', KEYS[3])
  if first then
    local offset, epoch = string.match(first, '^(%d+) (.*)$')
    return {'d', epoch, offset}
  end
end
local stream, has_changed = open()
if not stream then
  return {'l', has_changed}
end
local version = ARGV[12]
if version ~= '' and stream.version and stream.version_epoch == ARGV[13] and stream.version >= version then
  if has_changed then
    store(stream)
  end
  return {'s', stream.epoch, text(stream.top)}
end

-- The first write must be one that fails if there is no memory, so that the script has no effect then.
local now = now_ms()
local item = struct.pack('>I8', now) .. ARGV[8]
stream.top = stream.top + 1
local len = redis.call('RPUSH', list_key, item)
if stream.is_new and len > 1 then
  redis.call('LTRIM', list_key, -1, -1)
  len = 1
end
-- The list may have expired.
stream.bytes = #item + (len > 1 and stream.bytes or 0)
local count_max, bytes_max, ttl = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
while len > 0 and (len > count_max or stream.bytes > bytes_max) do
  stream.bytes = stream.bytes - #redis.call('LPOP', list_key)
  len = len - 1
end
if stream.top % 16 == 0 then
  while len > 1 do
    local oldest = redis.call('LINDEX', list_key, 0)
    if struct.unpack('>I8', oldest) + ttl > now then
      break
    end
    redis.call('LPOP', list_key)
    stream.bytes = stream.bytes - #oldest
    len = len - 1
  end
end

local offset = text(stream.top)
if version ~= '' then
  redis.call('HSET', state_key, 'e', stream.epoch, 'o', offset, 'l', ARGV[1], 'b', text(stream.bytes),
    'v', version, 'w', ARGV[13])
else
  redis.call('HSET', state_key, 'e', stream.epoch, 'o', offset, 'l', ARGV[1], 'b', text(stream.bytes))
end
redis.call('PEXPIRE', state_key, ARGV[5])
if len > 0 then
  redis.call('PEXPIRE', list_key, ARGV[11])
end
if KEYS[3] then
  redis.call('SET', KEYS[3], offset .. ' ' .. stream.epoch, 'PX', ARGV[14])
end
redis.call(ARGV[6], ARGV[7], 'p' .. string.char(#stream.epoch) .. stream.epoch .. struct.pack('>I8', stream.top) .. ARGV[8])
return {'p', stream.epoch, offset}
