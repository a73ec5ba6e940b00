-- Takes back what `client_reserve.lua` charged: the newest code asked for a mailbox ('generate'), the
-- failure that was none ('repetition'), or both ('failure'). KEYS: the client's buckets.
-- Answers {0, how the client stands ...}, or {-1} if a bucket is unreadable.

local now, limits = clock(ARGV[1]), parse_client_limits(ARGV[2])
local mailbox, what = ARGV[3], ARGV[4]
local names = what == 'generate' and GENERATE_LIMITS or FAILURE_LIMITS

-- Those of neighbours at other instants stay.
local function give_back_failure(client)
  local newest = table.remove(client[1].failures)
  for place = 2, #client do
    local failures = client[place].failures
    for each = #failures, 1, -1 do
      if failures[each] == newest then
        table.remove(failures, each)
        break
      end
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
return { 0, unpack(standing(client, names, limits, now)) }
