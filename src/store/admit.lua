-- Decides whether one more mail may be sent, as `Remembered::repeat`, `ClientBudgets::generate_wait`
-- and `Budget::admit` do.
-- KEYS: budget if there are limits, what came of the request if it may be repeated, and the client's
-- buckets.
-- Answers {what, detail, how the client stands ...}, or {'unreadable'}. What and detail: 'granted'
-- and 0, 'refused' or 'client_refused' or 'in_flight' and milliseconds, 'accepted' or 'unfinished' and
-- an id, 'other_request' and 0. Nothing is written unless the mail is counted or the request unfinished.

local now, limits, challenge = clock(ARGV[1]), parse_limits(ARGV[2]), ARGV[3]
-- Empty if the request may not be repeated.
local fingerprint, id = ARGV[4], ARGV[5]
local memory, in_flight = tonumber(ARGV[6]), tonumber(ARGV[7])
local client_limits, mailbox = parse_client_limits(ARGV[8]), ARGV[9]
-- For how long the client is refused whose buckets are on another node, in milliseconds.
local refused_for = tonumber(ARGV[10])
local is_repeatable = fingerprint ~= ''
local budget_key = KEYS[1]
local repeat_place = limits and 2 or 1
local repeat_key = KEYS[repeat_place]

-- How long until fewer than `most` of these instants, oldest first, are within the window.
local function wait(instants, window, most)
  local counted = {}
  for _, at in ipairs(instants) do
    if at + window > now then
      counted[#counted + 1] = at
    end
  end
  if #counted < most then
    return 0
  end
  return counted[#counted - most + 1] + window - now
end

local client = load_client(is_repeatable and repeat_place + 1 or repeat_place, now)
local budget, remembered = false, false
if limits then
  budget = load_budget(budget_key, now)
end
if is_repeatable then
  remembered = load_remembered(repeat_key, now)
end
if not client or budget == nil or remembered == nil then
  return { 'unreadable' }
end

local function answer(what, detail)
  return { what, detail, unpack(standing(client, GENERATE_LIMITS, client_limits, now)) }
end

-- The answer to a request that is repeated.
local function repeat_request()
  if remembered.fingerprint ~= fingerprint then
    return answer('other_request', 0)
  end
  if remembered.enqueued then
    return answer('accepted', remembered.id)
  end
  if now < remembered.tried + in_flight then
    return answer('in_flight', remembered.tried + in_flight - now)
  end
  remembered.tried = now
  save_remembered(repeat_key, now, remembered)
  return answer('unfinished', remembered.id)
end

-- How long the mailbox has to wait; 0 if it has not.
local function mailbox_wait()
  local all, same = {}, {}
  for _, mail in ipairs(budget.mails) do
    all[#all + 1] = mail[AT]
    if mail[CHALLENGE] == challenge then
      same[#same + 1] = mail[AT]
    end
  end
  return math.max(
    wait(same, limits.cooldown, 1),
    wait(all, HOUR_MS, limits.per_hour),
    wait(all, DAY_MS, limits.per_day)
  )
end

if remembered then
  return repeat_request()
end
if limits then
  local client_longest =
    math.max(client_wait(client, GENERATE_LIMITS, client_limits, now, mailbox), refused_for)
  if client_longest > 0 then
    return answer('client_refused', client_longest)
  end
  local longest = mailbox_wait()
  if longest > 0 then
    return answer('refused', longest)
  end
  table.insert(budget.mails, { now, challenge })
  save_budget(budget_key, now, budget)
  charge_generate(client, now, mailbox)
  save_client(client, now)
end
if is_repeatable then
  save_remembered(repeat_key, now, {
    fingerprint = fingerprint, id = id, tried = now, ends = now + memory, enqueued = false,
  })
end
return answer('granted', 0)
