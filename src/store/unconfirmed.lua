-- Counts one more mail whose acceptance is unknown. KEYS: the count, one byte with the version,
-- then a MessagePack map with the member `count`. Answers the count, or -1 if it is unreadable.

local counted = load(KEYS[1], { count = 0 })
if not counted then
  return -1
end
counted.count = counted.count + 1
save(KEYS[1], counted, ARGV[1])
return counted.count
