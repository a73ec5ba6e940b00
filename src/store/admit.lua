-- Decides whether one more mail may be sent, as `Remembered::repeat`, `ClientBudgets::generate_wait`
-- and `Budget::admit` do.
-- KEYS: budget if there are limits, what came of the request if it may be repeated, and the client's
-- buckets.
-- Answers {what, detail, how the client stands ...}, or {'unreadable'}. What and detail: 'granted'
-- and 0, 'refused' or 'client_refused' or 'in_flight' and milliseconds, 'accepted' or 'unfinished' and
-- an id, 'other_request' and 0. Nothing is written unless the mail is counted or the request unfinished.

local now, challenge, mailbox = clock(ARGV[1]), ARGV[2], ARGV[3]
-- Empty if the request may not be repeated.
local fingerprint, id = ARGV[4], ARGV[5]
-- For how long the client is refused whose buckets are on another node, in milliseconds.
local refused_for = tonumber(ARGV[6])
local is_repeatable = fingerprint ~= ''
local budget_key = KEYS[1]
local repeat_place = HAS_LIMITS and 2 or 1
local repeat_key = KEYS[repeat_place]

local client = load_client(is_repeatable and repeat_place + 1 or repeat_place, now)
local budget, remembered = false, false
if HAS_LIMITS then
  budget = load_budget(budget_key, now)
end
if is_repeatable then
  remembered = load_remembered(repeat_key, now)
end
if not client or budget == nil or remembered == nil then
  return { 'unreadable' }
end

local function answer(what, detail)
  return { what, detail, generate_standing(client, now) }
end

-- The answer to a request that is repeated.
local function repeat_request()
  if remembered.fingerprint ~= fingerprint then
    return answer('other_request', 0)
  end
  if remembered.enqueued then
    return answer('accepted', remembered.id)
  end
  if now < remembered.tried + IN_FLIGHT_MS and remembered.tried <= now + CLOCK_STEP_MS then
    return answer('in_flight', remembered.tried + IN_FLIGHT_MS - now)
  end
  remembered.tried = now
  save_remembered(repeat_key, now, remembered)
  return answer('unfinished', remembered.id)
end

-- How long until fewer than `most` of these mails are within the window.
local function wait(mails, most, window)
  return wait_for(instants_of(mails, MAIL_LENGTH, window, now), most, window, now)
end

-- How long the mailbox has to wait; 0 if it has not.
local function mailbox_wait()
  local mails, same = budget.mails, ''
  for place = 1, #mails, MAIL_LENGTH do
    local at, whose = struct.unpack(MAIL, mails, place)
    if whose == challenge and at <= now + CLOCK_STEP_MS then
      same = same .. mails:sub(place, place + MAIL_LENGTH - 1)
    end
  end
  return math.max(
    wait(same, 1, COOLDOWN_MS),
    wait(mails, MAILS_PER_HOUR, HOUR_MS),
    wait(mails, MAILS_PER_DAY, DAY_MS)
  )
end

if remembered then
  return repeat_request()
end
if HAS_LIMITS then
  local client_longest = math.max(generate_wait(client, mailbox, now), refused_for)
  if client_longest > 0 then
    return answer('client_refused', client_longest)
  end
  local longest = mailbox_wait()
  if longest > 0 then
    return answer('refused', longest)
  end
  budget.mails = append(budget.mails, MAIL_LENGTH, struct.pack(MAIL, now, challenge))
  budget.ends = math.max(budget.ends, now + DAY_MS)
  save_budget(budget_key, now, budget)
  charge_generate(client, mailbox, now)
  save_client(client, now)
end
if is_repeatable then
  save_remembered(repeat_key, now, {
    fingerprint = fingerprint, id = id, tried = now, ends = now + REQUEST_REPLAY_MS, enqueued = false,
  })
end
return answer('granted', 0)
