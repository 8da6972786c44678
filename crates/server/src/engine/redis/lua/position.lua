-- Returns {'r', epoch, newest offset} or {'l', lineage}.
local stream, has_changed = open()
if not stream then
  return {'l', has_changed}
end
if has_changed then
  store(stream)
end
redis.call('PEXPIRE', state_key, ARGV[5])
return {'r', stream.epoch, text(stream.top)}
