-- What is remembered of a client, and the rules of `ClientBudgets` about wrong codes.
--
-- A bucket, at `otpost:{p:<name of the /24 or /48>}:<name of the bucket>`, in members of fixed length:
--   6  when the last of it leaves its window, 4 how many codes were asked for
-- for each code asked for in the last hour, oldest first:
--   6  instant, 8 mailbox
-- for each wrong code in the last hour, oldest first:
--   6  instant
-- Nothing is stored while nothing is charged.
--
-- The buckets of a client are the KEYS from some place on, its own one first; there are none where
-- its limits do not count.

local FACTORS = { 1, 2, 4 }
local GENERATE <const> = '>I6c8'
local GENERATE_LENGTH <const> = 14
local INSTANT_LENGTH <const> = 6
local NO_BUCKET <const> = '\2\0*10'

-- A list behind what is over at its head.
local function drop_over(list, length, now)
  local place = 1
  while place < #list and struct.unpack(INSTANT, list, place) + HOUR_MS <= now do
    place = place + length
  end
  return list:sub(place)
end

-- The buckets at KEYS from `first` on; nil if this version can't read one.
local function load_client(first, now)
  local client = { first = first }
  for place = first, #KEYS do
    local stored = redis.call('GET', KEYS[place]) or NO_BUCKET
    if stored:byte() ~= FIXED_BYTE then
      return nil
    end
    local _, ends, generates, begins = struct.unpack(BUDGET, stored)
    local behind = begins + generates * GENERATE_LENGTH
    client[#client + 1] = {
      ends = ends,
      generates = drop_over(stored:sub(begins, behind - 1), GENERATE_LENGTH, now),
      failures = drop_over(stored:sub(behind), INSTANT_LENGTH, now),
    }
  end
  return client
end

local function save_client(client, now)
  for place = 1, #client do
    local key, bucket = KEYS[client.first + place - 1], client[place]
    local generates, failures = bucket.generates, bucket.failures
    if #generates + #failures > 0 then
      local sizes = struct.pack(BUDGET, FIXED, bucket.ends, #generates / GENERATE_LENGTH)
      redis.call('SET', key, sizes .. generates .. failures, 'PX', bucket.ends - now)
    else
      redis.call('DEL', key)
    end
  end
end

-- The instants in a list that a window holds, oldest first.
local function instants_of(list, length, window, now)
  local instants = {}
  for place = 1, #list, length do
    local at = struct.unpack(INSTANT, list, place)
    if at + window > now then
      instants[#instants + 1] = at
    end
  end
  return instants
end

-- How long until one more than now fits.
local function until_one_more(instants, most, window, now)
  local oldest = instants[math.max(#instants - most, 0) + 1]
  return oldest and oldest + window - now or 0
end

-- How long until there are fewer than `most` of these instants, oldest first; 0 if there are now.
local function wait_for(instants, most, window, now)
  return #instants >= most and until_one_more(instants, most, window, now) or 0
end

-- How long until all buckets leave room for a wrong code; 0 if they do now.
local function failure_wait(client, now)
  local longest = 0
  for place = 1, #client do
    local bucket, most = client[place], CLIENT_FAILURES * FACTORS[place]
    if #bucket.failures >= most * INSTANT_LENGTH then
      local instants = instants_of(bucket.failures, INSTANT_LENGTH, HOUR_MS, now)
      longest = math.max(longest, wait_for(instants, most, HOUR_MS, now))
    end
  end
  return longest
end

-- How the client's own bucket stands: how many more codes may be wrong, and in how many milliseconds
-- one more than that. Zeros where there is none.
local function failure_standing(client, now)
  if not client[1] then
    return 0, 0
  end
  local instants = instants_of(client[1].failures, INSTANT_LENGTH, HOUR_MS, now)
  local remaining = math.max(CLIENT_FAILURES - #instants, 0)
  return remaining, until_one_more(instants, CLIENT_FAILURES, HOUR_MS, now)
end

local function charge_failure(client, now)
  for place = 1, #client do
    local bucket = client[place]
    bucket.failures = bucket.failures .. struct.pack(INSTANT, now)
    bucket.ends = math.max(bucket.ends, now + HOUR_MS)
  end
end

-- A list without its newest member for which `matches` holds, and the instant of that one; the list as it
-- is if there is none.
local function take_out(list, length, matches)
  for place = #list - length + 1, 1, -length do
    local at = struct.unpack(INSTANT, list, place)
    if matches(at, place) then
      return list:sub(1, place - 1) .. list:sub(place + length), at
    end
  end
  return list
end

-- Takes back the newest code that the client asked for the mailbox, from all buckets; those of its
-- neighbours stay. Answers whether there was one.
local function give_back_generate(client, mailbox)
  local newest
  for place = 1, #client do
    local generates, taken = client[place].generates, nil
    client[place].generates, taken = take_out(generates, GENERATE_LENGTH, function(at, each)
      local _, whose = struct.unpack(GENERATE, generates, each)
      return whose == mailbox and (not newest or at == newest)
    end)
    newest = newest or taken
    if not newest then
      return false
    end
  end
  return newest ~= nil
end
