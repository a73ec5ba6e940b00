-- Takes back what `client_reserve.lua` charged: the newest code asked for a mailbox ('generate'), the
-- failure that was none ('repetition'), or both ('failure'). KEYS: the client's buckets.
-- Answers {0, how the client stands ...}, or {-1} if a bucket is unreadable.

local now, mailbox, what = clock(ARGV[1]), ARGV[2], ARGV[3]

-- Takes the newest failure out, or the one of an instant; answers its instant.
local function take_failure_out(bucket, instant)
  local failures = bucket.failures
  for place = #failures - INSTANT_LENGTH + 1, 1, -INSTANT_LENGTH do
    local at = struct.unpack(INSTANT, failures, place)
    if not instant or at == instant then
      bucket.failures = failures:sub(1, place - 1) .. failures:sub(place + INSTANT_LENGTH)
      return at
    end
  end
  return nil
end

-- Those of neighbours at other instants stay.
local function give_back_failure(client)
  local newest = take_failure_out(client[1])
  for place = 2, newest and #client or 0 do
    take_failure_out(client[place], newest)
  end
end

local client = load_client(1, now)
if not client then
  return { -1 }
end
if what ~= 'repetition' then
  give_back_generate(client, mailbox)
end
if what ~= 'generate' then
  give_back_failure(client)
end
save_client(client, now)
local standing = what == 'generate' and generate_standing or failure_standing
return { 0, standing(client, now) }
