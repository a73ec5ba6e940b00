-- Takes back the newest mail for a challenge, which was not sent after all, as `Budget::give_back`
-- does, and the client's, and forgets a request that might have been repeated. KEYS: budget if there
-- are limits, what came of the request if it may be repeated, and the client's buckets. Answers 1 if
-- they are readable, else 0.

local now, challenge, mailbox, id = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local budget_key = KEYS[1]
local repeat_place = HAS_LIMITS and 2 or 1
local repeat_key = KEYS[repeat_place]

local client = load_client(id ~= '' and repeat_place + 1 or repeat_place, now)
local budget, remembered = false, false
if HAS_LIMITS then
  budget = load_budget(budget_key, now)
end
if id ~= '' then
  remembered = load_remembered(repeat_key, now)
end
if not client or budget == nil or remembered == nil then
  return 0
end
if remembered and remembered.id == id then
  redis.call('DEL', repeat_key)
end
if give_back_generate(client, mailbox) then
  save_client(client, now)
end
if budget then
  local others, taken = take_out(budget.mails, MAIL_LENGTH, function(at, place)
    local _, whose = struct.unpack(MAIL, budget.mails, place)
    return at > 0 and whose == challenge
  end)
  if taken then
    budget.mails = live_mails(others, now)
    save_budget(budget_key, now, budget)
  end
end
return 1
