//! Repeatable requests as rows.

use rusqlite::{Connection, OptionalExtension, params};

use super::sweep::{Swept, swept};
use super::{instant, signed};
use crate::otp::clock::UnixMillis;
use crate::otp::idempotency::{Fingerprint, IdempotencyId, Remembered, Repeatable};

const TABLE: Swept = swept!("idempotency", "id", "ends_at");

/// What is remembered under this key.
pub fn load(
    db: &Connection,
    key: IdempotencyId,
    now: UnixMillis,
) -> rusqlite::Result<Option<Remembered>> {
    db.prepare_cached(
        "SELECT fingerprint, request, tried_at, enqueued, ends_at FROM idempotency
         WHERE id = ? AND ends_at > ?",
    )?
    .query_row(params![key.0, signed(now)], |row| {
        Ok(Remembered {
            fingerprint: Fingerprint(row.get(0)?),
            id: row.get(1)?,
            tried_at: instant(row, 2)?,
            is_enqueued: row.get(3)?,
            ends_at: instant(row, 4)?,
        })
    })
    .optional()
}

/// Writes it, and removes a few that are over.
pub fn save(
    db: &Connection,
    key: IdempotencyId,
    remembered: &Remembered,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)")?
        .execute(params![
            key.0,
            remembered.fingerprint.0,
            remembered.id,
            signed(remembered.tried_at),
            remembered.is_enqueued,
            signed(remembered.ends_at),
        ])?;
    TABLE.sweep_after(db, key.0, now)
}

/// Notes that the job of a request is on the queue.
pub fn note_enqueued(db: &Connection, request: &Repeatable) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE idempotency SET enqueued = 1 WHERE id = ? AND request = ?")?
        .execute(params![request.key.0, request.id])
        .map(drop)
}

/// Forgets a request that was not accepted.
pub fn forget(db: &Connection, request: &Repeatable) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM idempotency WHERE id = ? AND request = ?")?
        .execute(params![request.key.0, request.id])
        .map(drop)
}
