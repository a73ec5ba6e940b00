-- What the scripts share; it is put before each of them.
--
-- The record of one challenge, at `otpost:{L}:c:<challenge>`: one byte with the version, then a
-- MessagePack map:
--   codes     the live codes, oldest first, each a map: nonce (16 bytes), tag (32 bytes),
--             key (id, 8 bytes), digits, made, ends, job, asked, stepped (absent but for
--             stepped-up codes)
--   attempts  wrong attempts against the live codes
--   success   a map: at, ends, replay; absent if there was none within the last lifetime. Its replay
--             is absent unless the code is right once more, for a while, a map: idempotency (the
--             client's key, 16 bytes), key and tag of the right code, ends, mismatches
-- Instants are milliseconds since 1970 (UTC). Members that are not known here are kept, so a later
-- version may add some; only what changes the meaning of these needs another version byte.
-- Instants decide; the TTL of a key only collects garbage.

local VERSION = '\1'
-- A record that says nothing is written, too, and Redis takes no TTL of 0.
local SHORTEST_TTL_MS = 10000
-- What was made further in the future was made while the clock was wrong, and is over.
local CLOCK_STEP_MS = 60000

-- The server's own time, unless a test sets it.
local function clock(injected)
  if injected ~= '' then
    return tonumber(injected)
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What is stored at a key: `empty` if nothing is, nil if this version can't read it.
local function load(key, empty)
  local stored = redis.call('GET', key)
  if not stored then
    return empty
  end
  if stored:sub(1, 1) ~= VERSION then
    return nil
  end
  local readable, content = pcall(cmsgpack.unpack, stored:sub(2))
  if readable and type(content) == 'table' then
    return content
  end
  return nil
end

local function save(key, content, ttl_ms)
  redis.call('SET', key, VERSION .. cmsgpack.pack(content), 'PX', ttl_ms)
end

-- The record of a challenge without what is over; nil if this version can't read it.
local function load_record(key, now)
  local record = load(key, { codes = {}, attempts = 0 })
  if not record then
    return nil
  end
  local live = {}
  for _, code in ipairs(record.codes) do
    if code.ends > now and code.made <= now + CLOCK_STEP_MS then
      live[#live + 1] = code
    end
  end
  record.codes = live
  if #live == 0 then
    record.attempts = 0
  end
  local success = record.success
  if success and (success.ends <= now or success.at > now + CLOCK_STEP_MS) then
    record.success = nil
  end
  local replay = record.success and record.success.replay
  if replay and replay.ends <= now then
    record.success.replay = nil
  end
  return record
end

-- Writes the record, even one that says nothing: a write that tells nobody whether a code is live.
local function save_record(key, now, record)
  local ends = record.success and record.success.ends or now
  for _, code in ipairs(record.codes) do
    ends = math.max(ends, code.ends)
  end
  save(key, record, math.max(ends - now, SHORTEST_TTL_MS))
end
