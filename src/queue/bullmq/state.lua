-- Where one job stands, without a walk through the lists of jobs.
-- KEYS: job, its lock, completed, failed, delayed. ARGV: the job's id.
-- Answers false or {place, timestamp, options, attempts started}.
local fields = redis.call('HMGET', KEYS[1], 'timestamp', 'opts', 'ats')
if not fields[1] then
  return false
end
local place = 'wait'
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then
  place = 'failed'
elseif redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  place = 'completed'
elseif redis.call('ZSCORE', KEYS[5], ARGV[1]) then
  place = 'delayed'
elseif redis.call('EXISTS', KEYS[2]) == 1 then
  place = 'active'
end
return {place, fields[1], fields[2] or '', fields[3] or '0'}
