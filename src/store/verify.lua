-- Decides whether a code is right, as `Record::verify` does. KEYS: record.
-- Answers 'correct', 'wrong', 'no_live_code' or 'unreadable'. The record is written exactly once,
-- whatever the answer, so that its time tells nothing; one that is unreadable is left alone.
-- Tags are HMACs under a key that callers do not have, so comparing them may take any time.

local FIRST_TAG = 4

local now = clock(ARGV[1])
local lifetime, most_attempts = tonumber(ARGV[2]), tonumber(ARGV[3])

-- From FIRST_TAG on: the id of each listed key, and the tag of the typed code under it.
local function is_right(codes)
  local right = false
  for _, code in ipairs(codes) do
    for place = FIRST_TAG, #ARGV, 2 do
      if ARGV[place] == code.key and ARGV[place + 1] == code.tag then
        right = true
      end
    end
  end
  return right
end

local function end_codes(record)
  record.codes = {}
  record.attempts = 0
end

local record = load_record(KEYS[1], now)
if not record then
  return 'unreadable'
end
if #record.codes == 0 then
  save_record(KEYS[1], now, record)
  return 'no_live_code'
end
if is_right(record.codes) then
  end_codes(record)
  record.success = { at = now, ends = now + lifetime }
  save_record(KEYS[1], now, record)
  return 'correct'
end
record.attempts = record.attempts + 1
if record.attempts >= most_attempts then
  end_codes(record)
end
save_record(KEYS[1], now, record)
return 'wrong'
