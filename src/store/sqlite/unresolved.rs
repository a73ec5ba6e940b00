//! The wrong codes of the whole service that no success followed, as rows: one an hour.

use rusqlite::{Connection, Row, params};

use crate::otp::breaker::{HOURS_KEPT, History, Hour};
use crate::otp::clock::{UnixMillis, millis};
use crate::otp::policy::HOUR;

/// Adds to the current hour; tells what the hours come to.
pub fn note(db: &Connection, now: UnixMillis, failures: i64) -> rusqlite::Result<History> {
    let current = now.0 / millis(HOUR);
    let oldest = (current + 1).saturating_sub(HOURS_KEPT);
    db.prepare_cached("DELETE FROM unresolved WHERE hour < ?")?
        .execute([column(oldest)])?;
    if failures != 0 {
        db.prepare_cached(
            "INSERT INTO unresolved VALUES (?, ?)
             ON CONFLICT (hour) DO UPDATE SET failures = failures + excluded.failures",
        )?
        .execute(params![column(current), failures])?;
    }
    let hours: Vec<Hour> = db
        .prepare_cached("SELECT hour, failures FROM unresolved")?
        .query_map([], hour)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(History::of(hours, current))
}

fn hour(row: &Row<'_>) -> rusqlite::Result<Hour> {
    Ok(Hour {
        number: u64::from(row.get::<_, u32>(0)?),
        failures: row.get(1)?,
    })
}

/// An hour as SQLite takes it; those beyond are some half a million years away.
fn column(hour: u64) -> u32 {
    u32::try_from(hour).unwrap_or(u32::MAX)
}
