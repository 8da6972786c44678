-- Removes all publications of a stream.
-- KEYS: 1 state of the stream, 2 its publications.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'b', '0')
end
redis.call('DEL', KEYS[2])
return 1
