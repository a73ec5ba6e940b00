-- What the scripts that count clients share, beside `budget.lua`: the rules of `ClientBudgets`.
--
-- A bucket, at `otpost:{p:<name of the /24 or /48>}:<name of the bucket>`: one byte with the version,
-- then a MessagePack map:
--   generates  codes asked for in the last hour, oldest first, in pairs: instant, mailbox (8 bytes)
--   failures   instants of wrong codes in the last hour, oldest first
-- Its TTL ends when the last of them leaves its window; nothing is stored while nothing is charged.
--
-- The buckets of a client are the KEYS from some place on, its own one first; there are none where
-- its limits do not count.

local FACTORS = { 1, 2, 4 }
local GENERATE_LIMITS, FAILURE_LIMITS = { 'per_10m', 'per_hour', 'addresses' }, { 'failures' }
local WINDOWS = { per_10m = 600000, per_hour = HOUR_MS, addresses = HOUR_MS, failures = HOUR_MS }

local function parse_client_limits(text)
  local per_10m, per_hour, addresses, failures = text:match('^(%d+) (%d+) (%d+) (%d+)$')
  return {
    per_10m = tonumber(per_10m), per_hour = tonumber(per_hour),
    addresses = tonumber(addresses), failures = tonumber(failures),
  }
end

-- The members whose instants an hour holds; each has `width` places, the first for its instant.
local function of_the_hour(members, width, now)
  local recent = {}
  for place = 1, #members, width do
    if members[place] + HOUR_MS > now then
      for each = place, place + width - 1 do
        recent[#recent + 1] = members[each]
      end
    end
  end
  return recent
end

-- The buckets at KEYS from `first` on; nil if this version can't read one.
local function load_client(first, now)
  local client = { first = first }
  for place = first, #KEYS do
    local bucket = load(KEYS[place], { generates = {}, failures = {} })
    if not bucket then
      return nil
    end
    bucket.generates = of_the_hour(bucket.generates, 2, now)
    bucket.failures = of_the_hour(bucket.failures, 1, now)
    client[#client + 1] = bucket
  end
  return client
end

local function save_client(client, now)
  for place, bucket in ipairs(client) do
    local key = KEYS[client.first + place - 1]
    local ends = now
    for each = 1, #bucket.generates, 2 do
      ends = math.max(ends, bucket.generates[each] + HOUR_MS)
    end
    for _, at in ipairs(bucket.failures) do
      ends = math.max(ends, at + HOUR_MS)
    end
    if ends > now then
      save(key, bucket, ends - now)
    else
      redis.call('DEL', key)
    end
  end
end

-- When the codes that were asked for began to count, oldest first. With `is_distinct` a mailbox counts
-- once, from the last code that was asked for it.
local function instants_of(generates, window, now, is_distinct)
  local newest_first, seen = {}, {}
  for place = #generates - 1, 1, -2 do
    local at, mailbox = generates[place], generates[place + 1]
    if at + window > now and not (is_distinct and seen[mailbox]) then
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

-- When what a limit counts began to count, oldest first.
local function counted(bucket, limit, now)
  if limit == 'failures' then
    return bucket.failures
  end
  return instants_of(bucket.generates, WINDOWS[limit], now, limit == 'addresses')
end

-- Whether a bucket holds so many that a limit could count as many as this: only then is it worth
-- while to list them.
local function may_hold(bucket, limit, most)
  if limit == 'failures' then
    return #bucket.failures >= most
  end
  return #bucket.generates >= most * 2
end

-- How long until one more than now fits.
local function until_one_more(instants, most, limit, now)
  local oldest = instants[math.max(#instants - most, 0) + 1]
  return oldest and oldest + WINDOWS[limit] - now or 0
end

local function knows(bucket, mailbox)
  for place = 2, #bucket.generates, 2 do
    if bucket.generates[place] == mailbox then
      return true
    end
  end
  return false
end

-- How long until all of these limits leave room in all buckets; 0 if they do now. A mailbox that is
-- known is no further one.
local function client_wait(client, names, limits, now, mailbox)
  local longest = 0
  for place, bucket in ipairs(client) do
    for _, name in ipairs(names) do
      local most = limits[name] * FACTORS[place]
      if may_hold(bucket, name, most) and not (name == 'addresses' and knows(bucket, mailbox)) then
        local instants = counted(bucket, name, now)
        if #instants >= most then
          longest = math.max(longest, until_one_more(instants, most, name, now))
        end
      end
    end
  end
  return longest
end

-- How the client's own bucket stands: for each limit how many more there may be, and in how many
-- milliseconds one more than that. Nothing where there is none.
local function standing(client, names, limits, now)
  local numbers, own = {}, client[1]
  for _, name in ipairs(own and names or {}) do
    local instants = counted(own, name, now)
    numbers[#numbers + 1] = math.max(limits[name] - #instants, 0)
    numbers[#numbers + 1] = until_one_more(instants, limits[name], name, now)
  end
  return numbers
end

local function charge_generate(client, now, mailbox)
  for _, bucket in ipairs(client) do
    table.insert(bucket.generates, now)
    table.insert(bucket.generates, mailbox)
  end
end

local function charge_failure(client, now)
  for _, bucket in ipairs(client) do
    table.insert(bucket.failures, now)
  end
end

-- Takes the newest pair out for which `matches` holds; answers its instant.
local function take_out(generates, matches)
  for place = #generates - 1, 1, -2 do
    local at = generates[place]
    if matches(at, generates[place + 1]) then
      table.remove(generates, place + 1)
      table.remove(generates, place)
      return at
    end
  end
  return nil
end

-- Takes back the newest code that the client asked for the mailbox, from all buckets; those of its
-- neighbours stay. Answers whether there was one.
local function give_back_generate(client, mailbox)
  local newest = client[1] and take_out(client[1].generates, function(_, whose)
    return whose == mailbox
  end)
  if not newest then
    return false
  end
  for place = 2, #client do
    take_out(client[place].generates, function(at, whose)
      return at == newest and whose == mailbox
    end)
  end
  return true
end
