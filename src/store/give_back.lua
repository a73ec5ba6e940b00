-- Takes back the newest mail for a challenge, which was not sent after all, as `Budget::give_back`
-- does, and the client's, and forgets a request that might have been repeated. KEYS: budget if there
-- are limits, what came of the request if it may be repeated, and the client's buckets. Answers 1 if
-- they are readable, else 0.

local now, limits, challenge, id = clock(ARGV[1]), parse_limits(ARGV[2]), ARGV[3], ARGV[4]
local mailbox = ARGV[5]
local budget_key = KEYS[1]
local repeat_place = limits and 2 or 1
local repeat_key = KEYS[repeat_place]

local client = load_client(id ~= '' and repeat_place + 1 or repeat_place, now)
local budget, remembered = false, false
if limits then
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
for place = budget and #budget.mails or 0, 1, -1 do
  if budget.mails[place][CHALLENGE] == challenge then
    table.remove(budget.mails, place)
    save_budget(budget_key, now, budget)
    break
  end
end
return 1
