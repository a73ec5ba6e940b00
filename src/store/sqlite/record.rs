//! The records of challenges as rows: one for the challenge, and one for each of its codes.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::sweep::{Swept, swept};
use super::{instant, signed};
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::budget::Class;
use crate::otp::clock::UnixMillis;
use crate::otp::code::{Nonce, Tag};
use crate::otp::idempotency::IdempotencyId;
use crate::otp::keys::KeyId;
use crate::otp::record::{Candidate, LiveCode, Record, Replay, Success};

/// Codes go with their challenge (`ON DELETE CASCADE`).
const TABLE: Swept = swept!("challenge", "id", "ends_at");

/// How long a row stays that a verify wrote although it says nothing.
pub const EMPTY_ROW: Duration = Duration::from_secs(10);

/// What is remembered of this challenge.
pub fn load(db: &Connection, challenge: ChallengeId) -> rusqlite::Result<Record> {
    let row = db
        .prepare_cached(
            "SELECT attempts, success_at, success_until, replay_key, replay_key_id, replay_tag,
                 replay_until, replay_mismatches, has_codes
             FROM challenge WHERE id = ?",
        )?
        .query_row([challenge.0], |row| {
            Ok((row.get(0)?, success(row)?, row.get(8)?))
        })
        .optional()?;
    // Asked for in any case, which takes the same time. Put in order here, since SQLite parses the
    // statement anew each time if it is to do it.
    let codes: rusqlite::Result<Vec<(i64, LiveCode)>> = db
        .prepare_cached(
            "SELECT nonce, tag, key_id, digits, made_at, expires_at, job, requested_at, stepped, place
             FROM code WHERE challenge = ?",
        )?
        .query_map([challenge.0], |row| Ok((row.get(9)?, live_code(row)?)))?
        .collect();
    let (attempts, success, has_codes) = row.unwrap_or_default();
    let mut codes = if has_codes { codes? } else { Vec::new() };
    codes.sort_unstable_by_key(|(place, _)| *place);
    Ok(Record {
        codes: codes.into_iter().map(|(_, code)| code).collect(),
        attempts,
        success,
    })
}

fn success(row: &Row<'_>) -> rusqlite::Result<Option<Success>> {
    if row.get::<_, Option<i64>>(1)?.is_none() {
        return Ok(None);
    }
    let replay = match row.get(3)? {
        Some(key) => Some(Replay {
            key: IdempotencyId(key),
            key_id: KeyId(row.get(4)?),
            tag: Tag(row.get(5)?),
            until: instant(row, 6)?,
            mismatches: row.get(7)?,
        }),
        None => None,
    };
    Ok(Some(Success {
        at: instant(row, 1)?,
        until: instant(row, 2)?,
        replay,
    }))
}

fn live_code(row: &Row<'_>) -> rusqlite::Result<LiveCode> {
    Ok(LiveCode {
        candidate: Candidate {
            nonce: Nonce(row.get(0)?),
            tag: Tag(row.get(1)?),
            key_id: KeyId(row.get(2)?),
            digits: row.get(3)?,
        },
        made_at: instant(row, 4)?,
        expires_at: instant(row, 5)?,
        class: if row.get(8)? {
            Class::Stepped
        } else {
            Class::Normal
        },
        job: row.get(6)?,
        requested_at: instant(row, 7)?,
    })
}

/// Writes all but the codes, and removes a few challenges that are over, with their codes. Codes that a
/// verify has ended stay where they are and count no more: removing them would be work that only a
/// live code makes.
pub fn save_state(
    db: &Connection,
    challenge: ChallengeId,
    limit: LimitId,
    record: &Record,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let least = now.after(EMPTY_ROW);
    let replay = record.success.and_then(|success| success.replay);
    db.prepare_cached(
        "INSERT INTO challenge (id, limit_id, attempts, success_at, success_until, ends_at,
             replay_key, replay_key_id, replay_tag, replay_until, replay_mismatches, has_codes)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET
             attempts = excluded.attempts, success_at = excluded.success_at,
             success_until = excluded.success_until, ends_at = excluded.ends_at,
             replay_key = excluded.replay_key, replay_key_id = excluded.replay_key_id,
             replay_tag = excluded.replay_tag, replay_until = excluded.replay_until,
             replay_mismatches = excluded.replay_mismatches,
             has_codes = excluded.has_codes, writes = writes + 1",
    )?
    .execute(params![
        challenge.0,
        limit.0,
        record.attempts,
        record.success.map(|success| signed(success.at)),
        record.success.map(|success| signed(success.until)),
        signed(record.ends_at().map_or(least, |ends| ends.max(least))),
        replay.map(|replay| replay.key.0),
        replay.map(|replay| replay.key_id.0),
        replay.map(|replay| replay.tag.0),
        replay.map(|replay| signed(replay.until)),
        replay.map(|replay| replay.mismatches),
        !record.codes.is_empty(),
    ])?;
    TABLE.sweep_after(db, challenge.0, now)
}

/// Writes the codes in place of those that were there.
pub fn save_codes(
    db: &Connection,
    challenge: ChallengeId,
    codes: &[LiveCode],
) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM code WHERE challenge = ?")?
        .execute([challenge.0])?;
    let mut insert =
        db.prepare_cached("INSERT INTO code VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    for (place, code) in codes.iter().enumerate() {
        insert.execute(params![
            challenge.0,
            i64::try_from(place).unwrap_or(i64::MAX),
            code.candidate.nonce.0,
            code.candidate.tag.0,
            code.candidate.key_id.0,
            code.candidate.digits,
            signed(code.made_at),
            signed(code.expires_at),
            code.job,
            signed(code.requested_at),
            code.class == Class::Stepped,
        ])?;
    }
    Ok(())
}
