//! The requests as rows: how each ended, and how many of its mails have an unknown outcome.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::sweep::{Swept, swept};
use super::{instant, signed};
use crate::otp::clock::UnixMillis;
use crate::store::{EndState, Ending, REQUEST_MEMORY};

const TABLE: Swept = swept!("request", "id", "forget_at");

/// Notes how a request ended.
pub fn finish(db: &Connection, now: UnixMillis, id: &str, ending: Ending) -> rusqlite::Result<()> {
    sweep(db, now, id)?;
    db.prepare_cached(
        "INSERT INTO request (id, state, requested_at, ended_at, forget_at)
         VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET
             state = excluded.state, requested_at = excluded.requested_at,
             ended_at = excluded.ended_at, forget_at = excluded.forget_at
         WHERE state IS NULL OR excluded.state = 'sent'",
    )?
    .execute(params![
        id,
        ending.state.name(),
        signed(ending.requested_at),
        signed(ending.ended_at),
        signed(now.after(REQUEST_MEMORY)),
    ])?;
    Ok(())
}

/// How a request ended.
pub fn ending(db: &Connection, now: UnixMillis, id: &str) -> rusqlite::Result<Option<Ending>> {
    db.prepare_cached(
        "SELECT state, requested_at, ended_at FROM request
         WHERE id = ? AND state IS NOT NULL AND forget_at > ?",
    )?
    .query_row(params![id, signed(now)], |row| {
        Ok(Ending {
            state: end_state(row)?,
            requested_at: instant(row, 1)?,
            ended_at: instant(row, 2)?,
        })
    })
    .optional()
}

/// Counts one more mail with an unknown outcome.
pub fn count_unconfirmed(db: &Connection, now: UnixMillis, job: &str) -> rusqlite::Result<u32> {
    sweep(db, now, job)?;
    db.prepare_cached(
        "INSERT INTO request (id, unconfirmed, forget_at) VALUES (?, 1, ?)
         ON CONFLICT (id) DO UPDATE SET
             unconfirmed = unconfirmed + 1, forget_at = excluded.forget_at
         RETURNING unconfirmed",
    )?
    .query_row(params![job, signed(now.after(REQUEST_MEMORY))], |row| {
        row.get(0)
    })
}

/// Removes a few rows whose day is over, and in any case this one if its is.
fn sweep(db: &Connection, now: UnixMillis, id: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM request WHERE id = ? AND forget_at <= ?")?
        .execute(params![id, signed(now)])?;
    TABLE.sweep_after(db, id, now)
}

fn end_state(row: &Row<'_>) -> rusqlite::Result<EndState> {
    let found: String = row.get(0)?;
    let state = EndState::ALL
        .into_iter()
        .find(|state| state.name() == found);
    state.ok_or_else(|| {
        let reason = format!("unknown state `{found}`");
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, reason.into())
    })
}
