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

/// How long a row stays that says nothing.
const EMPTY_ROW: Duration = Duration::from_secs(10);

/// What was found under a name.
#[derive(Default)]
pub struct Found<T> {
    /// What the row says; nothing if there is none.
    pub state: T,
    /// Set if there is none, unless it would be the last one.
    neighbour: Option<Neighbour>,
}

/// The row that stands where another one would.
struct Neighbour {
    name: Vec<u8>,
    state: Vec<u8>,
    ends_at: i64,
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

/// What stands under a name, or where it would stand.
pub fn load<T: Default>(
    db: &Connection,
    name: &[u8],
    read: impl Fn(&mut Octets<'_>) -> Option<T>,
) -> rusqlite::Result<Found<T>> {
    let found = db
        .prepare_cached(
            "SELECT name, state, ends_at FROM mailbox WHERE name >= ? ORDER BY name LIMIT 1",
        )?
        .query_row([name], |row| {
            let state = row.get_ref(1)?.as_blob()?;
            if row.get_ref(0)?.as_blob()? == name {
                return Ok(Found {
                    state: read(&mut Octets(state)).ok_or_else(|| unreadable(1))?,
                    neighbour: None,
                });
            }
            Ok(Found {
                neighbour: Some(Neighbour {
                    name: row.get(0)?,
                    state: state.to_vec(),
                    ends_at: row.get(2)?,
                }),
                ..Found::default()
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

impl<T: Default + PartialEq> Found<T> {
    /// Writes the state that the row is to have. If there is no row, and nothing to say, its neighbour is
    /// written as it was: a verify writes as much on the same page whether there is something to say or
    /// not, and adds no row. So this comes before the neighbour is given another state.
    pub fn save(
        &self,
        db: &Connection,
        name: &[u8],
        state: &[u8],
        ends_at: Option<UnixMillis>,
        now: UnixMillis,
    ) -> rusqlite::Result<()> {
        if let Some(neighbour) = &self.neighbour
            && self.state == T::default()
        {
            return write(db, &neighbour.name, &neighbour.state, neighbour.ends_at);
        }
        let least = now.after(EMPTY_ROW);
        let ends_at = ends_at.map_or(least, |ends| ends.max(least));
        write(db, name, state, signed(ends_at))
    }
}

/// A row always differs from what it was: SQLite leaves a page alone that a write would not change.
fn write(db: &Connection, name: &[u8], state: &[u8], ends_at: i64) -> rusqlite::Result<()> {
    let change = i64::try_from(db.total_changes()).unwrap_or(i64::MAX);
    db.prepare_cached("INSERT OR REPLACE INTO mailbox VALUES (?, ?, ?, ?)")?
        .execute(params![name, state, ends_at, change])
        .map(drop)
}

/// Removes a few rows that are over behind the one of this name.
pub fn sweep(db: &Connection, name: &[u8], now: UnixMillis) -> rusqlite::Result<()> {
    TABLE.sweep_after(db, name, now)
}
