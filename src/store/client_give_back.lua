-- Takes back what `client_reserve.lua` charged: the newest code asked for a mailbox ('generate'), the
-- failure that was none ('repetition'), or both ('failure'). KEYS: the client's buckets.
-- Answers {0, how the client stands ...}, or {-1} if a bucket is unreadable.

local now, mailbox, what = clock(ARGV[1]), ARGV[2], ARGV[3]

-- Those of neighbours at other instants stay.
local function give_back_failure(client)
  local newest
  for place = 1, #client do
    local bucket, taken = client[place], nil
    bucket.failures, taken = take_out(bucket.failures, INSTANT_LENGTH, function(at)
      return not newest or at == newest
    end)
    newest = newest or taken
    if not newest then
      return
    end
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
