-- Decides whether one more mail is within a pace. KEYS: the instants of the newest mails under its
-- name, the newest first, a list of numbers: as many as the pace allows in its window, so that the
-- last one decides and none is counted. It is no value with a version byte; another form will have
-- another key.
-- Answers {0, the instant that it counts from}, or {1, after how many milliseconds there is room}.

local now, most, window = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local deciding = tonumber(redis.call('LINDEX', KEYS[1], most - 1) or 0)
local wait, latest = deciding + window - now, now + CLOCK_STEP_MS
if deciding > latest then
  -- It was counted while the clock was wrong, as may be others before it.
  redis.call('LTRIM', KEYS[1], 0, most - 1)
  repeat
    redis.call('RPOP', KEYS[1])
    local oldest = tonumber(redis.call('LINDEX', KEYS[1], -1) or 0)
  until oldest <= latest
elseif wait > 0 then
  -- Longer waits would come of a clock that was set back.
  return { 1, math.min(wait, window) }
end
redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
redis.call('LTRIM', KEYS[1], 0, most - 1)
redis.call('PEXPIRE', KEYS[1], window)
return { 0, now }
