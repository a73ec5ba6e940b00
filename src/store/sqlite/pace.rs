//! The paces as rows: the mails of the last minute under each name, in places without gaps. The one
//! that decides is found by its place, so that no decision counts rows.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{instant, signed};
use crate::otp::clock::UnixMillis;
use crate::otp::pace::MINUTE;
use crate::otp::policy::CLOCK_STEP;
use crate::store::{Pace, PaceName, Paced};

/// Decides whether one more mail is within the pace, and counts it then.
pub fn ask(db: &Connection, now: UnixMillis, pace: &Pace) -> rusqlite::Result<Paced> {
    let newest = newest(db, pace.name)?;
    // With room for one mail this is the newest itself.
    let deciding = newest - i64::from(pace.per_minute) + 1;
    let counted = db
        .prepare_cached("SELECT at FROM pace WHERE name = ? AND place = ?")?
        .query_row(params![pace.name.0, deciding], |row| instant(row, 0))
        .optional()?;
    if let Some(at) = counted {
        let (wait, latest) = (at.after(MINUTE).since(now), now.after(CLOCK_STEP));
        if at > latest {
            forget_later(db, pace.name, latest)?;
        } else if !wait.is_zero() {
            // Longer waits would come of a clock that was set back before a start.
            return Ok(Paced::Wait(wait.min(MINUTE)));
        }
    }
    db.prepare_cached("INSERT INTO pace VALUES (?, ?, ?)")?
        .execute(params![pace.name.0, newest + 1, signed(now)])?;
    sweep(db, now)?;
    Ok(Paced::Now(now))
}

/// Takes back the newest mail of that instant. Those after it move down, so that no gap is left;
/// they are few, since what is given back is as young as an attempt at a mail.
pub fn give_back(db: &Connection, name: PaceName, at: UnixMillis) -> rusqlite::Result<()> {
    let found: Option<i64> = db
        .prepare_cached(
            "SELECT place FROM pace WHERE name = ? AND at = ? ORDER BY place DESC LIMIT 1",
        )?
        .query_row(params![name.0, signed(at)], |row| row.get(0))
        .optional()?;
    let Some(place) = found else {
        return Ok(());
    };
    let later: Vec<(i64, i64)> = db
        .prepare_cached("SELECT place, at FROM pace WHERE name = ? AND place > ? ORDER BY place")?
        .query_map(params![name.0, place], pair)?
        .collect::<rusqlite::Result<_>>()?;
    let mut shift = db.prepare_cached("UPDATE pace SET at = ? WHERE name = ? AND place = ?")?;
    for (place, at) in &later {
        shift.execute(params![at, name.0, place - 1])?;
    }
    let newest = later.last().map_or(place, |(place, _)| *place);
    db.prepare_cached("DELETE FROM pace WHERE name = ? AND place = ?")?
        .execute(params![name.0, newest])?;
    Ok(())
}

/// The place of the newest mail, or 0 if there is none.
fn newest(db: &Connection, name: PaceName) -> rusqlite::Result<i64> {
    let newest: Option<i64> = db
        .prepare_cached("SELECT max(place) FROM pace WHERE name = ?")?
        .query_row([name.0], |row| row.get(0))?;
    Ok(newest.unwrap_or_default())
}

/// Removes the mails that were counted while the clock was wrong. What stands before them decides
/// nothing any more, so that the gap does no harm.
fn forget_later(db: &Connection, name: PaceName, latest: UnixMillis) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM pace WHERE name = ? AND at > ?")?
        .execute(params![name.0, signed(latest)])?;
    Ok(())
}

/// Removes a few mails whose minute is over. They are the oldest of their names, so that the places
/// of the others stay without gaps.
fn sweep(db: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    let over: Vec<(PaceName, i64)> = db
        .prepare_cached("SELECT name, place FROM pace WHERE at <= ? ORDER BY at, place LIMIT 4")?
        .query_map([signed(now.before(MINUTE))], |row| {
            Ok((PaceName(row.get(0)?), row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (name, place) in over {
        db.prepare_cached("DELETE FROM pace WHERE name = ? AND place = ?")?
            .execute(params![name.0, place])?;
    }
    Ok(())
}

fn pair(row: &Row<'_>) -> rusqlite::Result<(i64, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}
