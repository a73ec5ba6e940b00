-- Decides whether a code is right, as `Record::verify` does. KEYS: record, and
-- budget if there are limits.
-- Answers {'correct' | 'wrong' | 'no_live_code' | 'budget_spent', live codes of normal length and
-- stepped-up ones that a wrong code was compared with}, or {'unreadable'}. Both values are written
-- exactly once, in this one step, whatever the answer, so that its time tells nothing; but without
-- limits there is no budget, and nothing is written if either is unreadable.
-- Tags are HMACs under a key that callers do not have, so comparing them may take any time.

local FIRST_TAG = 6

local now = clock(ARGV[1])
local lifetime, most_attempts = tonumber(ARGV[2]), tonumber(ARGV[3])
local limits, client = parse_limits(ARGV[4]), ARGV[5]

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

local record = load_record(KEYS[1], now)
local budget = limits and load_budget(KEYS[2], now)
if not record or (limits and not budget) then
  return { 'unreadable' }
end

local function end_codes()
  record.codes = {}
  record.attempts = 0
end

local function answer(word, normal, stepped)
  save_record(KEYS[1], now, record)
  if limits then
    save_budget(KEYS[2], now, budget)
  end
  return { word, normal or 0, stepped or 0 }
end

if #record.codes == 0 then
  return answer('no_live_code')
end
local compared, normal, stepped = {}, 0, 0
if has_share(budget, limits, now, client) then
  for _, code in ipairs(record.codes) do
    if is_open(budget, limits, now, code.stepped) then
      compared[#compared + 1] = code
      if code.stepped then
        stepped = stepped + 1
      else
        normal = normal + 1
      end
    end
  end
end
if #compared == 0 then
  return answer('budget_spent')
end
if is_right(compared) then
  end_codes()
  record.success = { at = now, ends = now + lifetime }
  return answer('correct')
end
record.attempts = record.attempts + 1
if record.attempts >= most_attempts then
  end_codes()
end
if limits then
  table.insert(budget.failures, { now, client, normal, stepped })
end
return answer('wrong', normal, stepped)
