-- Decides which code a job may mail, as `Record::issue` does. KEYS: record, and
-- budget if there are limits.
-- Answers {'live', nonce, key id, digits, expiry, now}, {'superseded'}, {'too_old'}, {'blocked'} or
-- {'unreadable'}. Nothing is written unless a code is made; the budget is only read.

local now = clock(ARGV[1])
local job, asked = ARGV[2], math.min(tonumber(ARGV[3]), now)
local nonce, tag, key_id, digits = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local stepped_tag, must_step_up = ARGV[8], ARGV[9] == '1'

-- When a code was asked for, what it is derived from, and the job that made it.
local function rest_of(code)
  return struct.unpack(REST_OF_CODE, code.bytes, REST_AT)
end

local function live(code)
  local _, its_nonce = rest_of(code)
  return { 'live', its_nonce, code.key, code.digits, code.ends, now }
end

local function is_of_this_job(code)
  local _, _, its_job = rest_of(code)
  return its_job == job
end

local function is_retry(code)
  return is_of_this_job(code) and code.ends >= now + RETRY_MARGIN_MS
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
  return (half_left or #codes >= LIVE_CODES) and longest or nil
end

-- The newest code, unless the job is newer, or made it and less than a minute of it is left.
local function code_not_to_rotate(codes)
  local newest = codes[#codes]
  if not newest or asked > rest_of(newest) then
    return nil
  end
  local is_late_retry = is_of_this_job(newest) and not is_retry(newest)
  return not is_late_retry and newest or nil
end

local record = load_record(KEYS[1], now)
local budget = HAS_LIMITS and load_budget(KEYS[2], now)
if not record or (HAS_LIMITS and not budget) then
  return { 'unreadable' }
end
if asked < record.success_at - SUPERSEDE_MARGIN_MS then
  return { 'superseded' }
end
if asked + LIFETIME_MS <= now then
  return { 'too_old' }
end

local has_spent = not is_open(budget, false)
if has_spent and STEP_UP_BLOCKS then
  return { 'blocked' }
end

-- What is spent is not compared: a code that nobody may use must not be mailed.
local usable = {}
for _, code in ipairs(record.codes) do
  if is_open(budget, code.is_stepped) then
    usable[#usable + 1] = code
  end
end
local existing
if RESEND_KEEPS then
  existing = code_to_keep(usable)
else
  existing = code_not_to_rotate(usable)
end
if existing then
  return live(existing)
end
local is_stepped = has_spent or must_step_up
if not is_open(budget, is_stepped) then
  return { 'blocked' }
end

record.codes = RESEND_KEEPS and usable or {}
if is_stepped then
  tag, digits = stepped_tag, STEPPED_DIGITS
end
local ends = now + LIFETIME_MS
local bytes = struct.pack(CODE, tag, key_id, digits, is_stepped and 1 or 0, now, ends)
  .. struct.pack(REST_OF_CODE, asked, nonce, #job, job)
local code = read_code(bytes, 1)
table.insert(record.codes, code)
save_record(KEYS[1], now, record)
return live(code)
