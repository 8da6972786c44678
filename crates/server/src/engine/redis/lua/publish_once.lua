-- Sends a publication that is not stored, unless its idempotency key was used.
-- KEYS: 1 state of the idempotency key. ARGV: 1 SPUBLISH or PUBLISH, 2 pub/sub channel, 3 message, 4 time to live of the key in
-- ms. Returns whether it was sent.
if redis.call('SET', KEYS[1], '0 ', 'NX', 'PX', ARGV[4]) then
  redis.call(ARGV[1], ARGV[2], ARGV[3])
  return 1
end
return 0
