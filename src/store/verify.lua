-- Decides whether a code is right, as `Record::verify` does, unless the client has had its failures;
-- it is charged with every code that is not right. KEYS: record, and if there are limits budget and the
-- client's buckets.
-- Answers {what, live codes of normal length and stepped-up ones that a wrong code was compared with,
-- wrong attempts that a right one followed, after how many milliseconds the client is refused no more,
-- how it stands ...}, or {'unreadable'}; what: 'correct', 'repeated', 'key_reused', 'wrong',
-- 'no_live_code', 'budget_spent' or 'refused'. Record and budget are written exactly once, in this one
-- step, and there is as much to read, compare and write, whatever the answer, so that its time tells
-- nothing; but without limits there is no budget, and nothing is written if anything is unreadable or
-- the client refused.
-- Tags are HMACs under a key that callers do not have, so comparing them may take any time.

local FIRST_TAG = 10
-- What stands in for what is not there, with the weight of what could be: it ended in 2001, so that
-- whoever loads it leaves it out.
local PAST = 1000000000000
local NO_CODE = {
  nonce = string.rep('\0', 16), tag = string.rep('\0', 32), key = string.rep('\0', 8),
  digits = 6, made = PAST, ends = PAST, job = string.rep('0', 27), asked = PAST,
}
local NO_SUCCESS = { at = PAST, ends = PAST }
local NO_MAIL, NO_FAILURE = { PAST, string.rep('0', 32) }, { PAST, string.rep('\0', 16), 1, 0 }
local FEWEST_MAILS, FEWEST_FAILURES = 1, 6

local now = clock(ARGV[1])
local lifetime, most_attempts = tonumber(ARGV[2]), tonumber(ARGV[3])
local limits, client_name = parse_limits(ARGV[4]), ARGV[5]
-- The client's key is empty if it may not repeat the request.
local idempotency, replay_time = ARGV[6], tonumber(ARGV[7])
local client_limits, mailbox = parse_client_limits(ARGV[8]), ARGV[9]

-- From FIRST_TAG on: the id of each listed key, and the tag of the typed code under it.
local function is_typed(code)
  local typed = false
  for place = FIRST_TAG, #ARGV, 2 do
    if ARGV[place] == code.key and ARGV[place + 1] == code.tag then
      typed = true
    end
  end
  return typed
end

local function right_one(codes)
  local right = nil
  for _, code in ipairs(codes) do
    if is_typed(code) then
      right = right or code
    end
  end
  return right
end

local function fill(list, fewest, with)
  for _ = #list + 1, fewest do
    table.insert(list, 1, with)
  end
end

local client = load_client(limits and 3 or 2, now)
if not client then
  return { 'unreadable' }
end

local function stands(word, normal, stepped, resolved, wait_ms)
  local numbers = standing(client, FAILURE_LIMITS, client_limits, now)
  return { word, normal, stepped, resolved, wait_ms, unpack(numbers) }
end

local refused_for = client_wait(client, FAILURE_LIMITS, client_limits, now)
if refused_for > 0 then
  return stands('refused', 0, 0, 0, refused_for)
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

local function answer(word, normal, stepped, resolved)
  fill(record.codes, 1, NO_CODE)
  record.success = record.success or NO_SUCCESS
  save_record(KEYS[1], now, record)
  if limits then
    fill(budget.mails, FEWEST_MAILS, NO_MAIL)
    fill(budget.failures, FEWEST_FAILURES, NO_FAILURE)
    save_budget(KEYS[2], now, budget)
  end
  local is_right = word == 'correct' or word == 'repeated'
  if not is_right then
    charge_failure(client, now)
  end
  if not is_right or (word == 'correct' and give_back_generate(client, mailbox)) then
    save_client(client, now)
  end
  return stands(word, normal or 0, stepped or 0, resolved or 0, 0)
end

local success = record.success
local replay = success and success.replay
if replay and replay.idempotency == idempotency then
  if is_typed(replay) then
    return answer('repeated')
  end
  -- Other codes under that key are guesses, too: they end as those against a live code do.
  replay.mismatches = replay.mismatches + 1
  if replay.mismatches >= most_attempts then
    success.replay = nil
  end
  return answer('key_reused')
end
local is_live = #record.codes > 0
local compared, normal, stepped = {}, 0, 0
if has_share(budget, limits, now, client_name) then
  for _, code in ipairs(is_live and record.codes or { NO_CODE }) do
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
local right = right_one(compared)
if not is_live then
  return answer('no_live_code')
end
if #compared == 0 then
  return answer('budget_spent')
end
if right then
  local resolved = record.attempts
  end_codes()
  record.success = { at = now, ends = now + lifetime }
  if idempotency ~= '' then
    record.success.replay = {
      idempotency = idempotency, key = right.key, tag = right.tag, ends = now + replay_time,
      mismatches = 0,
    }
  end
  return answer('correct', 0, 0, resolved)
end
record.attempts = record.attempts + 1
if record.attempts >= most_attempts then
  end_codes()
end
if limits then
  local whose = client_name == '' and NO_FAILURE[CLIENT] or client_name
  table.insert(budget.failures, { now, whose, normal, stepped })
end
return answer('wrong', normal, stepped)
