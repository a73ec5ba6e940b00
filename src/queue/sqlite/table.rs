//! The statements on the table `job`.

use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::otp::clock::UnixMillis;
use crate::queue::QueueLimits;
use crate::queue::job::VERSION;

/// A job as an attempt needs it.
#[derive(Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// Its id.
    pub id: String,
    /// Its data as JSON.
    pub data: String,
    /// When it was requested.
    pub requested_at: UnixMillis,
    /// Attempts begun and ended so far.
    pub attempts: u32,
}

/// Where a job stands, as far as the table tells.
pub struct StoredState {
    /// `waiting`, `completed` or `failed`.
    pub state: String,
    /// When it was requested.
    pub requested_at: UnixMillis,
    /// Attempts begun and ended so far.
    pub attempts: u32,
}

/// Adds a job and tells its place in line, or nothing if there is one of that id.
pub fn insert(db: &Connection, job: &StoredJob) -> Result<Option<i64>> {
    let mut statement = db.prepare_cached(
        "INSERT INTO job (id, version, data, requested_at, run_at, attempts, state)
         VALUES (?1, ?2, ?3, ?4, ?4, 0, 'waiting') ON CONFLICT (id) DO NOTHING",
    )?;
    let requested_at = signed(job.requested_at.0);
    let added = statement.execute(params![job.id, signed(VERSION), job.data, requested_at])?;
    Ok((added > 0).then(|| db.last_insert_rowid()))
}

/// All jobs that wait and that this version understands: place in line and when they may run.
pub fn waiting(db: &Connection) -> Result<Vec<(i64, UnixMillis)>> {
    let mut statement = db.prepare_cached(
        "SELECT sequence, run_at FROM job WHERE state = 'waiting' AND version <= ?1
         ORDER BY sequence",
    )?;
    let rows = statement.query_map([signed(VERSION)], |row| Ok((row.get(0)?, time(row, 1)?)))?;
    rows.collect()
}

/// A job that waits, if it is still there.
pub fn read(db: &Connection, sequence: i64) -> Result<Option<StoredJob>> {
    let mut statement = db.prepare_cached(
        "SELECT id, data, requested_at, attempts FROM job
         WHERE sequence = ?1 AND state = 'waiting'",
    )?;
    let read = statement.query_row([sequence], |row| {
        Ok(StoredJob {
            id: row.get(0)?,
            data: row.get(1)?,
            requested_at: time(row, 2)?,
            attempts: row.get(3)?,
        })
    });
    read.optional()
}

/// Where the job of this id stands.
pub fn find(db: &Connection, id: &str) -> Result<Option<StoredState>> {
    let mut statement =
        db.prepare_cached("SELECT state, requested_at, attempts FROM job WHERE id = ?1")?;
    let found = statement.query_row([id], |row| {
        Ok(StoredState {
            state: row.get(0)?,
            requested_at: time(row, 1)?,
            attempts: row.get(2)?,
        })
    });
    found.optional()
}

/// Notes that an attempt ended and that the job may run again at `run_at`.
pub fn retry(db: &Connection, sequence: i64, attempts: u32, run_at: UnixMillis) -> Result<()> {
    db.prepare_cached("UPDATE job SET attempts = ?2, run_at = ?3 WHERE sequence = ?1")?
        .execute(params![sequence, attempts, signed(run_at.0)])
        .map(drop)
}

/// Removes a job that is done.
pub fn remove(db: &Connection, sequence: i64) -> Result<()> {
    db.prepare_cached("DELETE FROM job WHERE sequence = ?1")?
        .execute([sequence])
        .map(drop)
}

/// Keeps a job that has ended: completed if there is no reason, failed otherwise.
pub fn end(
    db: &Connection,
    sequence: i64,
    attempts: u32,
    reason: Option<&str>,
    now: UnixMillis,
) -> Result<()> {
    let state = if reason.is_some() {
        "failed"
    } else {
        "completed"
    };
    db.prepare_cached(
        "UPDATE job SET state = ?2, attempts = ?3, reason = ?4, ended_at = ?5 WHERE sequence = ?1",
    )?
    .execute(params![sequence, state, attempts, reason, signed(now.0)])
    .map(drop)
}

/// How many failed jobs are kept.
pub fn failed(db: &Connection) -> Result<u64> {
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM job WHERE ended_at IS NOT NULL AND state = 'failed'")?
        .query_row([], |row| row.get(0))?;
    Ok(unsigned(count))
}

/// Removes what was kept long enough and what is beyond the number of failed jobs to keep.
pub fn clean(db: &Connection, limits: &QueueLimits, now: UnixMillis) -> Result<()> {
    let mut old = db.prepare_cached("DELETE FROM job WHERE ended_at <= ?1 AND state = ?2")?;
    let kept = [
        ("completed", limits.keep_completed),
        ("failed", limits.keep_failed),
    ];
    for (state, span) in kept {
        old.execute(params![signed(now.before(span).0), state])?;
    }
    db.prepare_cached(
        "DELETE FROM job WHERE sequence IN (
             SELECT sequence FROM job WHERE ended_at IS NOT NULL AND state = 'failed'
             ORDER BY ended_at DESC, sequence DESC LIMIT -1 OFFSET ?1)",
    )?
    .execute([limits.keep_failed_count])
    .map(drop)
}

fn time(row: &Row<'_>, column: usize) -> Result<UnixMillis> {
    row.get(column).map(|value| UnixMillis(unsigned(value)))
}

/// SQLite's numbers are signed; no time and no count of ours comes near the end of them.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
