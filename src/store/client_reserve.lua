-- Charges a client before it is known whether its mailbox allows what it asks for: where a cluster
-- keeps the two apart. KEYS: the client's buckets.
-- Answers {0, how the client stands ...} if it is charged, {after how many milliseconds it may be,
-- how it stands ...} if not, or {-1} if a bucket is unreadable.

local now, limits = clock(ARGV[1]), parse_client_limits(ARGV[2])
local mailbox, is_generate = ARGV[3], ARGV[4] == 'generate'
local names = is_generate and GENERATE_LIMITS or FAILURE_LIMITS

local client = load_client(1, now)
if not client then
  return { -1 }
end
local wait_ms = client_wait(client, names, limits, now, mailbox)
if wait_ms == 0 then
  if is_generate then
    charge_generate(client, now, mailbox)
  else
    charge_failure(client, now)
  end
  save_client(client, now)
end
return { wait_ms, unpack(standing(client, names, limits, now)) }
