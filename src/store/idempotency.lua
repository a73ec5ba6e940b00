-- What the scripts that take requests for codes share, beside `map.lua`: the rules of `Remembered`.
--
-- What came of a request that its client may repeat, at `otpost:{L}:i:<key>`: one byte with the
-- version, then a MessagePack map:
--   fingerprint  what it said (16 bytes)
--   id           the id of the request and of its job
--   tried        when somebody last began to put its job onto the queue
--   enqueued     whether its job is known to be on the queue
--   ends         until when it is remembered; its TTL says the same

-- False if nothing is remembered, nil if this version can't read it.
local function load_remembered(key, now)
  local remembered = load(key, false)
  if remembered and remembered.ends <= now then
    return false
  end
  return remembered
end

local function save_remembered(key, now, remembered)
  save(key, remembered, remembered.ends - now)
end
