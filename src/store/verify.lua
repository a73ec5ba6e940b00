-- Decides whether a code is right, as `Record::verify` does, unless the client has had its failures;
-- it is charged with every code that is not right. KEYS: record, and if there are limits budget and the
-- client's buckets.
-- Answers in octets: what (1), live codes of normal length (1) and stepped-up ones (1) that a wrong code
-- was compared with, wrong attempts that a right one followed (2), after how many milliseconds the
-- client is refused no more (6), how many more codes of it may be wrong (4) and in how many
-- milliseconds one more than that (6); or '' if anything is unreadable.
-- Record and budget are written exactly once, in this one step, and there is as much to read, compare
-- and write, whatever the answer, so that its time tells nothing; but without limits there is no
-- budget, and nothing is written if anything is unreadable or the client refused.
-- Tags are HMACs under a key that callers do not have, so comparing them may take any time.

local FIRST_TAG <const> = 5
local CORRECT <const> = 1
local REPEATED <const> = 2
local KEY_REUSED <const> = 3
local WRONG <const> = 4
local NO_LIVE_CODE <const> = 5
local BUDGET_SPENT <const> = 6
local REFUSED <const> = 7

local now = clock(ARGV[1])
-- Of the client and of the mailbox; the client's idempotency key is empty if it may not repeat the
-- request.
local whose, mailbox, idempotency = ARGV[2], ARGV[3], ARGV[4]

-- From FIRST_TAG on: the id of each listed key, and the tag of the typed code under it.
local function is_typed(key, tag)
  local typed = false
  for place = FIRST_TAG, #ARGV, 2 do
    if ARGV[place] == key and ARGV[place + 1] == tag then
      typed = true
    end
  end
  return typed
end

local client = load_client(HAS_LIMITS and 3 or 2, now)
if not client then
  return ''
end

local function tell(what, normal, stepped, resolved, wait_ms)
  local remaining, more_in = failure_standing(client, now)
  return struct.pack('>BBBI2I6I4I6', what, normal, stepped, resolved, wait_ms, remaining, more_in)
end

local refused_for = failure_wait(client, now)
if refused_for > 0 then
  return tell(REFUSED, 0, 0, 0, refused_for)
end

local record = load_record(KEYS[1], now)
local budget = HAS_LIMITS and load_budget(KEYS[2], now, whose)
if not record or (HAS_LIMITS and not budget) then
  return ''
end

local function answer(what, normal, stepped, resolved)
  save_record(KEYS[1], now, record)
  if HAS_LIMITS then
    -- Made whatever the answer, and charged if the code is wrong.
    local client_name = whose == '' and NO_CLIENT or whose
    local failure = struct.pack(FAILURE, now, client_name, normal or 0, stepped or 0)
    local with_failure = append(budget.failures, FAILURE_LENGTH, failure)
    if what == WRONG then
      budget.failures = with_failure
      budget.ends = math.max(budget.ends, failure_ends(now, normal))
    end
    save_budget(KEYS[2], now, budget)
  end
  local is_right = what == CORRECT or what == REPEATED
  if not is_right then
    charge_failure(client, now)
  end
  if not is_right or (what == CORRECT and give_back_generate(client, mailbox)) then
    save_client(client, now)
  end
  return tell(what, normal or 0, stepped or 0, resolved or 0, 0)
end

if idempotency ~= '' and record.replay:sub(1, 16) == idempotency then
  local _, key, tag, ends, mismatches = struct.unpack(REPLAY, record.replay)
  if ends > now and is_typed(key, tag) then
    return answer(REPEATED)
  end
  if ends > now then
    -- Other codes under that key are guesses, too: they end as those against a live code do.
    mismatches = mismatches + 1
    local is_over = mismatches >= MOST_ATTEMPTS
    record.replay = is_over and NO_REPLAY or struct.pack(REPLAY, idempotency, key, tag, ends, mismatches)
    return answer(KEY_REUSED)
  end
end
local is_live = #record.codes > 0
local right, normal, stepped = nil, 0, 0
local has_share = not HAS_LIMITS or whose == '' or budget.of_client < FAILURES_PER_CLIENT_PER_DAY
local codes = is_live and record.codes or { record.newest }
for place = 1, #codes do
  local code = codes[place]
  if has_share and is_open(budget, code.is_stepped) then
    if is_typed(code.key, code.tag) then
      right = right or code
    end
    if code.is_stepped then
      stepped = stepped + 1
    else
      normal = normal + 1
    end
  end
end
if not is_live then
  return answer(NO_LIVE_CODE)
end
if normal + stepped == 0 then
  return answer(BUDGET_SPENT)
end
if right then
  local resolved = record.attempts
  record.codes, record.attempts = {}, 0
  record.success_at, record.success_ends = now, now + LIFETIME_MS
  record.replay = NO_REPLAY
  if idempotency ~= '' then
    record.replay = struct.pack(REPLAY, idempotency, right.key, right.tag, now + REPLAY_MS, 0)
  end
  return answer(CORRECT, 0, 0, resolved)
end
record.attempts = record.attempts + 1
if record.attempts >= MOST_ATTEMPTS then
  record.codes, record.attempts = {}, 0
end
return answer(WRONG, normal, stepped)
