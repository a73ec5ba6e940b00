-- The record of one challenge, at `otpost:{L}:c:<challenge>`, in members of fixed length:
--   2   wrong attempts against the live codes
--   6   when a code was last right, 6 until when this is remembered
--   64  what lets that success be answered once more, for a while, or zeros: the client's idempotency
--       key (16), key (8) and tag (32) of the right code, until when (6), how often another code came
--       under that key (2)
-- and for each code, oldest first:
--   32  tag, 8 id of the key, 1 digits, 1 whether it is stepped up
--   6   when it was made, 6 until when it lives, 6 when it was asked for
--   16  nonce, 2 length of the job's id, and the id
-- There is always a code, a dead one if need be, and always room for a success, so that a record
-- weighs the same whatever became of it.

local RECORD <const> = '>c1I2I6I6c64c0'
local REPLAY <const> = '>c16c8c32I6I2'
local CODE <const> = '>c32c8BBI6I6'
local REST_OF_CODE <const> = '>I6c16I2c0'
local CODES_AT <const> = 80
local REST_AT <const> = 55
local LENGTH_AT <const> = 76
local NO_REPLAY <const> = '\0*64'
local NO_CODE <const> = '\0*77\27\0*27'
local NO_RECORD <const> = '\2\0*155\27\0*27'

-- The code at this place, and where it ends.
local function read_code(stored, place)
  local tag, key, digits, stepped, made, ends = struct.unpack(CODE, stored, place)
  local high, low = stored:byte(place + LENGTH_AT, place + LENGTH_AT + 1)
  local behind = place + LENGTH_AT + 2 + high * 256 + low
  local code = {
    tag = tag, key = key, digits = digits, is_stepped = stepped > 0, made = made, ends = ends,
    bytes = stored:sub(place, behind - 1),
  }
  return code, behind
end

-- The record of a challenge without what is over, but for the newest code, dead or alive; nil if this
-- version can't read it.
local function load_record(key, now)
  local stored = redis.call('GET', key) or NO_RECORD
  if stored:byte() ~= FIXED_BYTE then
    return nil
  end
  local _, attempts, success_at, success_ends, replay = struct.unpack('>c1I2I6I6c64', stored)
  local codes, code, place = {}, nil, CODES_AT
  while place <= #stored do
    code, place = read_code(stored, place)
    if code.ends > now and code.made <= now + CLOCK_STEP_MS then
      codes[#codes + 1] = code
    end
  end
  if not code or place ~= #stored + 1 then
    return nil
  end
  if success_ends <= now or success_at > now + CLOCK_STEP_MS then
    success_at, success_ends, replay = 0, 0, NO_REPLAY
  end
  return {
    codes = codes, newest = code, attempts = codes[1] and attempts or 0,
    success_at = success_at, success_ends = success_ends, replay = replay,
  }
end

-- Writes the record, even one that says nothing: a write that tells nobody whether a code is live.
local function save_record(key, now, record)
  local codes, ends = record.codes, record.success_ends
  local bytes = codes[1] and codes[1].bytes or NO_CODE
  for place = 1, #codes do
    ends = math.max(ends, codes[place].ends)
    bytes = place > 1 and bytes .. codes[place].bytes or bytes
  end
  local value = struct.pack(
    RECORD, FIXED, record.attempts, record.success_at, record.success_ends, record.replay, bytes
  )
  redis.call('SET', key, value, 'PX', math.max(ends - now, SHORTEST_TTL_MS))
end
