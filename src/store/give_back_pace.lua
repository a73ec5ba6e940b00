-- Takes back the newest mail of an instant, which was not sent after all. KEYS: the instants, as in
-- `pace.lua`. It stands near the head, since it is as young as an attempt at a mail, so that the
-- search is short. Answers how many were removed.

return redis.call('LREM', KEYS[1], 1, ARGV[1])
