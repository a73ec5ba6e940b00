-- Writes why an attempt failed where Bull Board shows it. A job that is gone stays gone: a hash
-- without a job would never be removed.
-- KEYS: job. ARGV: reason, stack trace as a JSON array of texts.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'failedReason', ARGV[1], 'stacktrace', ARGV[2])
return 1
