//! What is remembered of mailboxes, as rows: under a mailbox's name its budget, and under that name with a
//! challenge's behind it the record of the challenge. They stand side by side, so that a decision finds and
//! writes them on one page.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::octets::{Octets, unreadable};
use super::signed;
use super::sweep::{Swept, swept};
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::clock::UnixMillis;

const TABLE: Swept = swept!("mailbox", "name", "ends_at");

/// How long a row stays that a verify wrote although it says nothing.
const EMPTY_ROW: Duration = Duration::from_secs(10);

/// A row that was read.
#[derive(Default)]
pub struct Row<T> {
    /// What it says.
    pub state: T,
    writes: u32,
}

/// The name of a mailbox's budget.
pub fn budget(limit: LimitId) -> [u8; 16] {
    limit.0
}

/// The name of the record of a challenge.
pub fn record(limit: LimitId, challenge: ChallengeId) -> [u8; 32] {
    let mut name = [0; 32];
    name[..16].copy_from_slice(&limit.0);
    name[16..].copy_from_slice(&challenge.0);
    name
}

/// What stands under a name.
pub fn load<T: Default>(
    db: &Connection,
    name: &[u8],
    read: impl Fn(&mut Octets<'_>) -> Option<T>,
) -> rusqlite::Result<Row<T>> {
    let found = db
        .prepare_cached("SELECT state, writes FROM mailbox WHERE name = ?")?
        .query_row([name], |row| {
            let mut octets = Octets(row.get_ref(0)?.as_blob()?);
            Ok(Row {
                state: read(&mut octets).ok_or_else(|| unreadable(0))?,
                writes: row.get(1)?,
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

impl<T> Row<T> {
    /// Writes the row, even one that says nothing. It always differs from what it was: SQLite leaves a page
    /// alone that a write would not change, and a verify that changes nothing must take as long as another.
    pub fn save(
        &self,
        db: &Connection,
        name: &[u8],
        state: &[u8],
        ends_at: Option<UnixMillis>,
        now: UnixMillis,
    ) -> rusqlite::Result<()> {
        let least = now.after(EMPTY_ROW);
        db.prepare_cached("INSERT OR REPLACE INTO mailbox VALUES (?, ?, ?, ?)")?
            .execute(params![
                name,
                state,
                signed(ends_at.map_or(least, |ends| ends.max(least))),
                self.writes.wrapping_add(1),
            ])
            .map(drop)
    }
}

/// Removes a few rows that are over.
pub fn sweep(db: &Connection, limit: LimitId, now: UnixMillis) -> rusqlite::Result<()> {
    TABLE.sweep_after(db, limit.0, now)
}
