-- Notes that the job of a request that may be repeated is on the queue. KEYS: what came of the
-- request. Answers 1 if that is readable, else 0.

local now, id = clock(ARGV[1]), ARGV[2]

local remembered = load_remembered(KEYS[1], now)
if remembered == nil then
  return 0
end
if remembered and remembered.id == id then
  remembered.enqueued = true
  save_remembered(KEYS[1], now, remembered)
end
return 1
