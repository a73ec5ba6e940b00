-- Store: whether a code is a stepped-up one, whose failures count in a budget of their own.
ALTER TABLE code ADD COLUMN stepped INTEGER NOT NULL DEFAULT 0;

-- Store: what is remembered of one mailbox. Both lists are JSON, oldest first.
CREATE TABLE budget (
    limit_id BLOB PRIMARY KEY,   -- 16 bytes
    mails    TEXT NOT NULL,      -- [[instant, challenge in hex], ...]
    failures TEXT NOT NULL,      -- [[instant, client in hex, normal, stepped], ...]
    ends_at  INTEGER NOT NULL    -- when nothing of it matters any more
) WITHOUT ROWID;
CREATE INDEX budget_ends_at ON budget (ends_at);
