-- Store: what is remembered of one challenge. Times are milliseconds since 1970 (UTC).
CREATE TABLE challenge (
    id            BLOB PRIMARY KEY,  -- 16 bytes
    limit_id      BLOB NOT NULL,     -- 16 bytes, the mailbox that it belongs to
    attempts      INTEGER NOT NULL,
    success_at    INTEGER,
    success_until INTEGER,
    ends_at       INTEGER NOT NULL   -- when nothing of it matters any more
) WITHOUT ROWID;
CREATE INDEX challenge_ends_at ON challenge (ends_at);

CREATE TABLE code (
    challenge    BLOB NOT NULL REFERENCES challenge (id) ON DELETE CASCADE,
    place        INTEGER NOT NULL,  -- 0 is the oldest
    nonce        BLOB NOT NULL,
    tag          BLOB NOT NULL,
    key_id       BLOB NOT NULL,
    digits       INTEGER NOT NULL,
    made_at      INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    job          TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    PRIMARY KEY (challenge, place)
) WITHOUT ROWID;

-- Store: how a request ended, and how many of its mails have an unknown outcome.
CREATE TABLE request (
    id           TEXT PRIMARY KEY,
    state        TEXT,
    requested_at INTEGER,
    ended_at     INTEGER,
    unconfirmed  INTEGER NOT NULL DEFAULT 0,
    forget_at    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX request_forget_at ON request (forget_at);

-- Store: the keys that the data was made with; `kind` is 'address' or 'master'.
CREATE TABLE key_mark (
    kind    TEXT NOT NULL,
    value   BLOB NOT NULL,
    used_at INTEGER NOT NULL,        -- when a process last said that it uses the key
    PRIMARY KEY (kind, value)
) WITHOUT ROWID;

-- The one row that is written to find out whether writes work.
CREATE TABLE dummy_write (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL
);
INSERT INTO dummy_write VALUES (1, 0);

-- Queue.
CREATE TABLE job (
    sequence     INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    version      INTEGER NOT NULL,
    data         TEXT NOT NULL,     -- JSON
    requested_at INTEGER NOT NULL,
    run_at       INTEGER NOT NULL,  -- not to run before
    attempts     INTEGER NOT NULL,  -- attempts begun
    state        TEXT NOT NULL CHECK (state IN ('waiting', 'completed', 'failed')),
    reason       TEXT,              -- why it failed
    ended_at     INTEGER
);
CREATE INDEX job_ended_at ON job (ended_at) WHERE ended_at IS NOT NULL;
