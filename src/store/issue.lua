-- Decides which code a job may mail, as `Record::issue` does. KEYS: record, and
-- budget if there are limits.
-- Answers {'live', nonce, key id, digits, expiry, now}, {'superseded'}, {'too_old'}, {'blocked'} or
-- {'unreadable'}. Nothing is written unless a code is made; the budget is only read.

local now = clock(ARGV[1])
local lifetime, resend, live_codes = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local retry_margin, supersede_margin = tonumber(ARGV[5]), tonumber(ARGV[6])
local job, asked = ARGV[7], math.min(tonumber(ARGV[8]), now)
local nonce, tag, key_id, digits = ARGV[9], ARGV[10], ARGV[11], tonumber(ARGV[12])
local stepped_tag, stepped_digits = ARGV[13], tonumber(ARGV[14])
local step_up, limits, must_step_up = ARGV[15], parse_limits(ARGV[16]), ARGV[17] == '1'

local function live(code)
  return { 'live', code.nonce, code.key, code.digits, code.ends, now }
end

local function is_retry(code)
  return code.job == job and code.ends >= now + retry_margin
end

-- The code that the same job made, while a minute of it is left; else the one that lives longest,
-- if half of its life is left or no further one may be made.
local function code_to_keep(codes)
  local longest = nil
  for _, code in ipairs(codes) do
    if is_retry(code) then
      return code
    end
    if not longest or code.ends >= longest.ends then
      longest = code
    end
  end
  if not longest then
    return nil
  end
  local half_left = (longest.ends - now) * 2 >= longest.ends - longest.made
  return (half_left or #codes >= live_codes) and longest or nil
end

-- The newest code, unless the job is newer, or made it and less than a minute of it is left.
local function code_not_to_rotate(codes)
  local newest = codes[#codes]
  if not newest or asked > newest.asked then
    return nil
  end
  local is_late_retry = newest.job == job and not is_retry(newest)
  return not is_late_retry and newest or nil
end

local record = load_record(KEYS[1], now)
local budget = limits and load_budget(KEYS[2], now)
if not record or (limits and not budget) then
  return { 'unreadable' }
end
if record.success and asked < record.success.at - supersede_margin then
  return { 'superseded' }
end
if asked + lifetime <= now then
  return { 'too_old' }
end

local has_spent = not is_open(budget, limits, now, false)
if has_spent and step_up == 'block' then
  return { 'blocked' }
end

-- What is spent is not compared: a code that nobody may use must not be mailed.
local usable = {}
for _, code in ipairs(record.codes) do
  if is_open(budget, limits, now, code.stepped) then
    usable[#usable + 1] = code
  end
end
local existing
if resend == 'keep' then
  existing = code_to_keep(usable)
else
  existing = code_not_to_rotate(usable)
end
if existing then
  return live(existing)
end
local is_stepped = has_spent or must_step_up
if not is_open(budget, limits, now, is_stepped) then
  return { 'blocked' }
end

record.codes = resend == 'keep' and usable or {}
local code = {
  nonce = nonce, tag = tag, key = key_id, digits = digits,
  made = now, ends = now + lifetime, job = job, asked = asked,
}
if is_stepped then
  code.tag, code.digits, code.stepped = stepped_tag, stepped_digits, true
end
table.insert(record.codes, code)
save_record(KEYS[1], now, record)
return live(code)
