-- Store: the mails of the last minute under each name, in places without gaps, so that the n-th
-- newest is found without counting.
CREATE TABLE pace (
    name  BLOB NOT NULL,     -- 16 bytes
    place INTEGER NOT NULL,  -- the greatest is the newest
    at    INTEGER NOT NULL,
    PRIMARY KEY (name, place)
) WITHOUT ROWID;
CREATE INDEX pace_at ON pace (at);

-- Store: these indexes were for finding what is over; each write of a row wrote pages of them, too.
DROP INDEX challenge_ends_at;
DROP INDEX request_forget_at;
DROP INDEX budget_ends_at;

-- Store: wrong codes of the whole service that no success followed, by hour.
CREATE TABLE unresolved (
    hour     INTEGER PRIMARY KEY,  -- since 1970
    failures INTEGER NOT NULL      -- below 0 if those of earlier hours were resolved in this one
);
-- Store: whether the codes of a challenge still count. A verify that ends them leaves their rows alone.
ALTER TABLE challenge ADD COLUMN has_codes INTEGER NOT NULL DEFAULT 1;
-- Store: how often a row was written. SQLite leaves a page alone that a write would not change, and a
-- verify that changes nothing must take as long as another.
ALTER TABLE challenge ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE budget ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;
-- Store: what lets the last success be answered again; absent if nothing does.
ALTER TABLE challenge ADD COLUMN replay_key BLOB;          -- 16 bytes
ALTER TABLE challenge ADD COLUMN replay_key_id BLOB;
ALTER TABLE challenge ADD COLUMN replay_tag BLOB;
ALTER TABLE challenge ADD COLUMN replay_until INTEGER;
ALTER TABLE challenge ADD COLUMN replay_mismatches INTEGER;

-- Store: what came of a request that its client may repeat.
CREATE TABLE idempotency (
    id          BLOB PRIMARY KEY,   -- 16 bytes
    fingerprint BLOB NOT NULL,      -- 16 bytes
    request     TEXT NOT NULL,      -- the id of the request and of its job
    tried_at    INTEGER NOT NULL,
    enqueued    INTEGER NOT NULL,
    ends_at     INTEGER NOT NULL
) WITHOUT ROWID;

-- Store: what is remembered of one client network. Both lists are oldest first, instants as 8 bytes,
-- the most significant one first.
CREATE TABLE client (
    prefix    BLOB PRIMARY KEY,  -- 16 bytes, its name
    generates BLOB NOT NULL,     -- 16 bytes each: the instant, and 8 bytes of the mailbox's name
    failures  BLOB NOT NULL,     -- 8 bytes each: the instant
    ends_at   INTEGER NOT NULL   -- when nothing of it matters any more
) WITHOUT ROWID;
