-- Decides whether one more mail may be sent, as `Budget::admit` does. KEYS: budget.
-- Answers 0 if it may, else after how many milliseconds; -1 if the budget is unreadable. Nothing is
-- written unless the mail is counted.

local now, limits, challenge = clock(ARGV[1]), parse_limits(ARGV[2]), ARGV[3]

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

local budget = load_budget(KEYS[1], now)
if not budget then
  return -1
end
local all, same = {}, {}
for _, mail in ipairs(budget.mails) do
  all[#all + 1] = mail[AT]
  if mail[CHALLENGE] == challenge then
    same[#same + 1] = mail[AT]
  end
end
local longest = math.max(
  wait(same, limits.cooldown, 1),
  wait(all, HOUR_MS, limits.per_hour),
  wait(all, DAY_MS, limits.per_day)
)
if longest > 0 then
  return longest
end
table.insert(budget.mails, { now, challenge })
save_budget(KEYS[1], now, budget)
return 0
