-- Store: what is remembered of a mailbox, side by side, so that a decision finds and writes it on one
-- page: under the mailbox's name its budget, and under that name with a challenge's behind it the record of
-- the challenge.
CREATE TABLE mailbox (
    name    BLOB PRIMARY KEY,   -- 16 or 32 bytes
    state   BLOB NOT NULL,      -- laid out in src/store/sqlite/budget.rs and record.rs
    ends_at INTEGER NOT NULL,   -- when nothing of it matters any more
    change  INTEGER NOT NULL    -- which change of the writer's it was, so that each changes the page
) WITHOUT ROWID;
INSERT INTO mailbox
SELECT
    unhex(hex(limit_id) || hex(id)),
    unhex(
        printf('%08x%016x%016x', attempts, coalesce(success_at, 0), coalesce(success_until, 0))
        || CASE
            WHEN replay_key IS NULL THEN hex(zeroblob(68))
            ELSE hex(replay_key) || hex(replay_key_id) || hex(replay_tag)
                || printf('%016x%08x', replay_until, replay_mismatches)
        END
        || coalesce((
            SELECT group_concat(
                hex(tag) || hex(key_id)
                || printf('%02x%02x%016x%016x%016x', digits, stepped, made_at, expires_at, requested_at)
                || hex(nonce) || printf('%04x', length(CAST(job AS BLOB))) || hex(CAST(job AS BLOB)),
                '' ORDER BY place
            )
            FROM code WHERE challenge = id AND has_codes
        ), '')
    ),
    ends_at,
    0
FROM challenge;
INSERT INTO mailbox
SELECT
    limit_id,
    unhex(
        printf('%08x', json_array_length(mails))
        || coalesce((
            SELECT group_concat(printf('%016x%s', value ->> 0, value ->> 1), '' ORDER BY key)
            FROM json_each(mails)
        ), '')
        || coalesce((
            SELECT group_concat(
                printf('%016x%s%02x%02x', value ->> 0, coalesce(value ->> 1, hex(zeroblob(16))),
                    value ->> 2, value ->> 3),
                '' ORDER BY key
            )
            FROM json_each(failures)
        ), '')
    ),
    ends_at,
    0
FROM budget;
DROP TABLE code;
DROP TABLE challenge;
DROP TABLE budget;
