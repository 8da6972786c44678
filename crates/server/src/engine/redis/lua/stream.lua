-- Start of all scripts about streams.
-- KEYS: 1 state of the stream, 2 its publications.
-- ARGV: 1 lineage of this server, 2 a lineage whose streams continue here, 3 a lineage that has ended, 4 name for a new epoch,
-- 5 time to live of the state in ms.
local state_key, list_key = KEYS[1], KEYS[2]

-- Unix time of this server in ms.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Numbers above 1e14 would become 1e+14.
local function text(number)
  return string.format('%.0f', number)
end

-- Returns the state of the stream and whether it has to be stored. Returns nil and a lineage if the caller has to decide
-- whether streams of that lineage continue here.
local function open()
  local fields = redis.call('HMGET', state_key, 'e', 'o', 'l', 'b', 'v', 'w')
  local stream = {
    epoch = fields[1], top = tonumber(fields[2]), bytes = tonumber(fields[4]) or 0,
    version = fields[5], version_epoch = fields[6],
  }
  if not stream.epoch or not stream.top then
    stream.epoch, stream.top, stream.bytes, stream.is_new = ARGV[4], 0, 0, true
    return stream, true
  end
  local lineage = fields[3] or ''
  if lineage == ARGV[1] then
    return stream, false
  end
  if lineage == ARGV[3] then
    stream.epoch = ARGV[4]
  elseif lineage ~= ARGV[2] then
    return nil, lineage
  end
  return stream, true
end

-- Stores a state that was opened and has changed.
local function store(stream)
  redis.call('HSET', state_key, 'e', stream.epoch, 'o', text(stream.top), 'l', ARGV[1], 'b', text(stream.bytes))
  if stream.is_new then
    redis.call('DEL', list_key)
  end
end
