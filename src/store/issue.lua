-- Decides which code a job may mail, as `Record::issue` does. KEYS: record.
-- Answers {'live', nonce, key id, digits, expiry, now}, {'superseded'}, {'too_old'} or
-- {'unreadable'}. Nothing is written unless a code is made.

local now = clock(ARGV[1])
local lifetime, resend, live_codes = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local retry_margin, supersede_margin = tonumber(ARGV[5]), tonumber(ARGV[6])
local job, asked = ARGV[7], math.min(tonumber(ARGV[8]), now)
local nonce, tag, key_id, digits = ARGV[9], ARGV[10], ARGV[11], tonumber(ARGV[12])

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
if not record then
  return { 'unreadable' }
end
if record.success and asked < record.success.at - supersede_margin then
  return { 'superseded' }
end
if asked + lifetime <= now then
  return { 'too_old' }
end

local existing
if resend == 'keep' then
  existing = code_to_keep(record.codes)
else
  existing = code_not_to_rotate(record.codes)
end
if existing then
  return live(existing)
end

if resend == 'rotate' then
  record.codes = {}
end
local code = {
  nonce = nonce, tag = tag, key = key_id, digits = digits,
  made = now, ends = now + lifetime, job = job, asked = asked,
}
table.insert(record.codes, code)
save_record(KEYS[1], now, record)
return live(code)
