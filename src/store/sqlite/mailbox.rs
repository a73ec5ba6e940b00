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
    /// Whether it was there.
    pub is_stored: bool,
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

/// The name of a record that says nothing, whatever the challenge: there are as many challenges as
/// callers think of contexts, and rows that stand together go slowly.
pub fn no_record(limit: LimitId) -> [u8; 32] {
    record(limit, ChallengeId([0; 16]))
}

/// What stands under a name.
pub fn load<T: Default>(
    db: &Connection,
    name: &[u8],
    read: impl Fn(&mut Octets<'_>) -> Option<T>,
) -> rusqlite::Result<Row<T>> {
    let found = db
        .prepare_cached("SELECT state FROM mailbox WHERE name = ?")?
        .query_row([name], |row| {
            let mut octets = Octets(row.get_ref(0)?.as_blob()?);
            Ok(Row {
                state: read(&mut octets).ok_or_else(|| unreadable(0))?,
                is_stored: true,
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Writes a row, even one that says nothing. It always differs from what it was: SQLite leaves a page alone
/// that a write would not change, and a verify that changes nothing must take as long as another.
pub fn save(
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
            i64::try_from(db.total_changes()).unwrap_or(i64::MAX),
        ])
        .map(drop)
}

/// Removes a few rows that are over behind the one of this name.
pub fn sweep(db: &Connection, name: &[u8], now: UnixMillis) -> rusqlite::Result<()> {
    TABLE.sweep_after(db, name, now)
}
