-- The rules of `ClientBudgets` about codes asked for, behind `client.lua`.

local TEN_MINUTES_MS <const> = 600000
-- Each a limit, its window, and whether mailboxes count in place of codes.
local GENERATE_LIMITS = {
  { CLIENT_GENERATES_PER_10M, TEN_MINUTES_MS, false },
  { CLIENT_GENERATES_PER_HOUR, HOUR_MS, false },
  { CLIENT_ADDRESSES_PER_HOUR, HOUR_MS, true },
}

-- When what a limit counts began to count, oldest first. A mailbox counts once, from the last code
-- that was asked for it.
local function generates_of(bucket, window, is_distinct, now)
  if not is_distinct then
    return instants_of(bucket.generates, GENERATE_LENGTH, window, now)
  end
  local newest_first, seen = {}, {}
  for place = #bucket.generates - GENERATE_LENGTH + 1, 1, -GENERATE_LENGTH do
    local at, mailbox = struct.unpack(GENERATE, bucket.generates, place)
    if at + window > now and not seen[mailbox] then
      newest_first[#newest_first + 1] = at
      seen[mailbox] = true
    end
  end
  local instants = {}
  for place = #newest_first, 1, -1 do
    instants[#instants + 1] = newest_first[place]
  end
  return instants
end

local function knows(bucket, mailbox, now)
  for place = 1, #bucket.generates, GENERATE_LENGTH do
    local at, whose = struct.unpack(GENERATE, bucket.generates, place)
    if whose == mailbox and at + HOUR_MS > now then
      return true
    end
  end
  return false
end

-- How long until all of the limits leave room in all buckets; 0 if they do now. A mailbox that is
-- known is no further one.
local function generate_wait(client, mailbox, now)
  local longest = 0
  for place, bucket in ipairs(client) do
    for _, limit in ipairs(GENERATE_LIMITS) do
      local most, window, is_distinct = limit[1] * FACTORS[place], limit[2], limit[3]
      -- Only where there are so many is it worth while to list them.
      local may_hold = #bucket.generates >= most * GENERATE_LENGTH
      if may_hold and not (is_distinct and knows(bucket, mailbox, now)) then
        local instants = generates_of(bucket, window, is_distinct, now)
        longest = math.max(longest, wait_for(instants, most, window, now))
      end
    end
  end
  return longest
end

-- How the client's own bucket stands: for each limit how many more there may be, and in how many
-- milliseconds one more than that. Nothing where there is none.
local function generate_standing(client, now)
  local numbers, own = {}, client[1]
  for _, limit in ipairs(own and GENERATE_LIMITS or {}) do
    local instants = generates_of(own, limit[2], limit[3], now)
    numbers[#numbers + 1] = math.max(limit[1] - #instants, 0)
    numbers[#numbers + 1] = until_one_more(instants, limit[1], limit[2], now)
  end
  return unpack(numbers)
end

local function charge_generate(client, mailbox, now)
  for _, bucket in ipairs(client) do
    bucket.generates = bucket.generates .. struct.pack(GENERATE, now, mailbox)
    bucket.ends = math.max(bucket.ends, now + HOUR_MS)
  end
end
