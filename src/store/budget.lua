-- What the scripts that count share, beside `record.lua`: the rules of `Budget`.
--
-- What is remembered of one mailbox, at `otpost:{L}:a`: one byte with the version, then a
-- MessagePack map:
--   mails     mails of the last day, oldest first, each an array: instant, challenge (32 hex digits)
--   failures  wrong codes, oldest first, each an array: instant, client (16 bytes, or empty if it
--             is not known), how many live codes of normal length and how many stepped-up ones it
--             was compared with
-- Its TTL ends when the last of them leaves its window.

local HOUR_MS, DAY_MS, MONTH_MS = 3600000, 86400000, 2592000000
local AT, CHALLENGE, CLIENT, NORMAL, STEPPED = 1, 2, 2, 3, 4

-- The limits as numbers in one argument; nil without limits.
local function parse_limits(text)
  local cooldown, per_hour, per_day, failures_per_hour, failures_per_day, failures_per_month,
    stepped_failures_per_day, failures_per_client_per_day =
    text:match('^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  return cooldown and {
    cooldown = tonumber(cooldown), per_hour = tonumber(per_hour), per_day = tonumber(per_day),
    failures_per_hour = tonumber(failures_per_hour), failures_per_day = tonumber(failures_per_day),
    failures_per_month = tonumber(failures_per_month),
    stepped_failures_per_day = tonumber(stepped_failures_per_day),
    failures_per_client_per_day = tonumber(failures_per_client_per_day),
  }
end

local function failure_ends(failure)
  return failure[AT] + (failure[NORMAL] > 0 and MONTH_MS or DAY_MS)
end

-- What no window holds any more is left out; nil if this version can't read the budget.
local function load_budget(key, now)
  local budget = load(key, { mails = {}, failures = {} })
  if not budget then
    return nil
  end
  local mails, failures = {}, {}
  for _, mail in ipairs(budget.mails) do
    if mail[AT] + DAY_MS > now then
      mails[#mails + 1] = mail
    end
  end
  for _, failure in ipairs(budget.failures) do
    if failure_ends(failure) > now then
      failures[#failures + 1] = failure
    end
  end
  budget.mails, budget.failures = mails, failures
  return budget
end

local function save_budget(key, now, budget)
  local ends = now
  for _, mail in ipairs(budget.mails) do
    ends = math.max(ends, mail[AT] + DAY_MS)
  end
  for _, failure in ipairs(budget.failures) do
    ends = math.max(ends, failure_ends(failure))
  end
  save(key, budget, math.max(ends - now, SHORTEST_TTL_MS))
end

-- How many failures lie within the window: those in which `member` is more than nothing.
local function count_failures(budget, now, window, member)
  local counted = 0
  for _, failure in ipairs(budget.failures) do
    if failure[member] > 0 and failure[AT] + window > now then
      counted = counted + 1
    end
  end
  return counted
end

-- Whether codes of this class are compared; always, without limits.
local function is_open(budget, limits, now, is_stepped)
  if not limits then
    return true
  end
  if is_stepped then
    return count_failures(budget, now, DAY_MS, STEPPED) < limits.stepped_failures_per_day
  end
  return count_failures(budget, now, HOUR_MS, NORMAL) < limits.failures_per_hour
    and count_failures(budget, now, DAY_MS, NORMAL) < limits.failures_per_day
    and count_failures(budget, now, MONTH_MS, NORMAL) < limits.failures_per_month
end

-- Whether this client may spend one more of the mailbox's failures.
local function has_share(budget, limits, now, client)
  if not limits or client == '' then
    return true
  end
  local spent = 0
  for _, failure in ipairs(budget.failures) do
    if failure[CLIENT] == client and failure[AT] + DAY_MS > now then
      spent = spent + 1
    end
  end
  return spent < limits.failures_per_client_per_day
end
