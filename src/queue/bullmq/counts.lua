-- How many jobs stand where: {waiting, active, delayed, failed}.
-- KEYS: wait, paused, prioritized, active, delayed, failed.
local waiting = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2])
  + redis.call('ZCARD', KEYS[3])
return {
  waiting, redis.call('LLEN', KEYS[4]), redis.call('ZCARD', KEYS[5]), redis.call('ZCARD', KEYS[6])
}
