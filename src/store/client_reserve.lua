-- Charges a client before it is known whether its mailbox allows what it asks for: where a cluster
-- keeps the two apart. KEYS: the client's buckets.
-- Answers {0, how the client stands ...} if it is charged, {after how many milliseconds it may be,
-- how it stands ...} if not, or {-1} if a bucket is unreadable.

local now, mailbox, is_generate = clock(ARGV[1]), ARGV[2], ARGV[3] == 'generate'

local client = load_client(1, now)
if not client then
  return { -1 }
end
local wait_ms = is_generate and generate_wait(client, mailbox, now) or failure_wait(client, now)
if wait_ms == 0 then
  if is_generate then
    charge_generate(client, mailbox, now)
  else
    charge_failure(client, now)
  end
  save_client(client, now)
end
local standing = is_generate and generate_standing or failure_standing
return { wait_ms, standing(client, now) }
