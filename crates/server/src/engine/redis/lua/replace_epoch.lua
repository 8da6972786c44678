-- Gives a stream a new epoch if it is still in the old one.
-- KEYS: 1 state of the stream. ARGV: 1 old epoch, 2 new epoch.
if redis.call('HGET', KEYS[1], 'e') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'e', ARGV[2])
end
return 1
