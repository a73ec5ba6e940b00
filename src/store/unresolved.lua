-- Adds to the wrong codes of the whole service that no success followed. KEYS: their sums by hour,
-- one byte with the version, then a MessagePack array of arrays: hour since 1970, sum.
-- Answers {current hour, {{hour, sum}, ...}}, or {0, {}} if they are unreadable.

local now, failures = clock(ARGV[1]), tonumber(ARGV[2])
local hour_ms, hours_kept = tonumber(ARGV[3]), tonumber(ARGV[4])

local stored = load(KEYS[1], {})
if not stored then
  return { 0, {} }
end
local current = math.floor(now / hour_ms)
local hours, found = {}, nil
for _, hour in ipairs(stored) do
  if hour[1] + hours_kept > current then
    hours[#hours + 1] = hour
    if hour[1] == current then
      found = hour
    end
  end
end
if failures ~= 0 then
  if not found then
    found = { current, 0 }
    hours[#hours + 1] = found
  end
  found[2] = found[2] + failures
  save(KEYS[1], hours, hours_kept * hour_ms)
end
return { current, hours }
