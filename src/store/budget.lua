-- What is remembered of one mailbox, at `otpost:{L}:a`, and the rules of `Budget`. In members of
-- fixed length:
--   6  when the last of it leaves its window, 4 how many mails there are
-- for each mail of the last day, oldest first:
--   6  instant, 16 challenge
-- for each wrong code in a window, oldest first:
--   6  instant, 16 client (zeros if it is not known)
--   1  how many live codes of normal length it was compared with, 1 how many stepped-up ones
-- There are no fewer mails and wrong codes than some, of 1970 if need be and first then, so that a
-- budget weighs the same whether a code was compared or not.

local INSTANT <const> = '>I6'
local MAIL <const> = '>I6c16'
local MAIL_LENGTH <const> = 22
local FAILURE <const> = '>I6c16BB'
local FAILURE_LENGTH <const> = 24
local BUDGET <const> = '>c1I6I4'
local MAILS_AT <const> = 12
local NO_CLIENT <const> = '\0*16'
local NO_MAIL <const> = '\0*22'
local NO_FAILURES <const> = '\0*144'
local NO_BUDGET <const> = '\2\0*9\1\0*166'

local function failure_ends(at, normal)
  return at + (normal > 0 and MONTH_MS or DAY_MS)
end

-- The members of a list that are not over, behind what stands in for missing ones.
local function without_over(list, length, stand_ins, is_over)
  local kept = ''
  for place = 1, #list, length do
    if not is_over(place) then
      kept = kept .. list:sub(place, place + length - 1)
    end
  end
  return stand_ins:sub(#kept + 1) .. kept
end

local function live_failures(failures, now)
  return without_over(failures, FAILURE_LENGTH, NO_FAILURES, function(place)
    local at, _, normal = struct.unpack(FAILURE, failures, place)
    return failure_ends(at, normal) <= now
  end)
end

local function live_mails(mails, now)
  return without_over(mails, MAIL_LENGTH, NO_MAIL, function(place)
    return struct.unpack(INSTANT, mails, place) + DAY_MS <= now
  end)
end

-- How many failures each window holds, and how many of a day are this client's; nil if this version
-- can't read the budget.
local function load_budget(key, now, client)
  local stored = redis.call('GET', key) or NO_BUDGET
  if stored:byte() ~= FIXED_BYTE then
    return nil
  end
  local _, ends, mails, oldest = struct.unpack('>c1I6I4I6', stored)
  local failures_at = MAILS_AT + mails * MAIL_LENGTH
  local hour, day, month, stepped, of_client, has_over = 0, 0, 0, 0, 0, false
  for place = failures_at, #stored, FAILURE_LENGTH do
    local at, whose, normal, longer = struct.unpack(FAILURE, stored, place)
    if normal > 0 and at + MONTH_MS > now then
      month = month + 1
    end
    if at + DAY_MS > now then
      if normal > 0 then
        day = day + 1
        hour = at + HOUR_MS > now and hour + 1 or hour
      end
      stepped = longer > 0 and stepped + 1 or stepped
      of_client = whose == client and of_client + 1 or of_client
    elseif at > 0 and failure_ends(at, normal) <= now then
      has_over = true
    end
  end
  local has_over_mail = oldest > 0 and oldest + DAY_MS <= now
  local mail_bytes, failures = stored:sub(MAILS_AT, failures_at - 1), stored:sub(failures_at)
  return {
    ends = ends, mails = has_over_mail and live_mails(mail_bytes, now) or mail_bytes,
    failures = has_over and live_failures(failures, now) or failures,
    hour = hour, day = day, month = month, stepped = stepped, of_client = of_client,
  }
end

local function save_budget(key, now, budget)
  local sizes = struct.pack(BUDGET, FIXED, budget.ends, #budget.mails / MAIL_LENGTH)
  local ttl_ms = math.max(budget.ends - now, SHORTEST_TTL_MS)
  redis.call('SET', key, sizes .. budget.mails .. budget.failures, 'PX', ttl_ms)
end

-- Whether codes of this class are compared; always, without limits.
local function is_open(budget, is_stepped)
  if not HAS_LIMITS then
    return true
  end
  if is_stepped then
    return budget.stepped < STEPPED_FAILURES_PER_DAY
  end
  return budget.hour < FAILURES_PER_HOUR
    and budget.day < FAILURES_PER_DAY
    and budget.month < FAILURES_PER_MONTH
end

-- A list with one more member, in place of what stands in for a missing one.
local function append(list, length, member)
  local stands_in = struct.unpack(INSTANT, list) == 0
  return (stands_in and list:sub(length + 1) or list) .. member
end
