-- Takes back the newest mail for a challenge, which was not sent after all, as `Budget::give_back`
-- does. KEYS: budget. Answers 1 if the budget is readable, else 0.

local now, challenge = clock(ARGV[1]), ARGV[2]

local budget = load_budget(KEYS[1], now)
if not budget then
  return 0
end
for place = #budget.mails, 1, -1 do
  if budget.mails[place][CHALLENGE] == challenge then
    table.remove(budget.mails, place)
    save_budget(KEYS[1], now, budget)
    break
  end
end
return 1
