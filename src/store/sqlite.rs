//! The store in the embedded database, for one process.
//!
//! Each operation runs whole on the writer thread: it reads the rows, lets the rules decide and
//! writes the rows, all in the commit that it is answered after. Rows that nothing asks for any
//! more are removed a few at a time along with new ones, so that the tables do not grow.

mod budget;
mod request;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    Admission, AdmitRequest, AttestError, Check, Ending, IssueRequest, Issued, KEY_MEMORY,
    OtpStore, StoreError, VerifyRequest,
};
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::budget::{Budget, Class};
use crate::otp::clock::{Clock, UnixMillis};
use crate::otp::code::{Nonce, Tag};
use crate::otp::keys::{KeyId, KeyMarks};
use crate::otp::policy::Policy;
use crate::otp::record::{Candidate, LiveCode, Record, Success};
use crate::sqlite::{Sqlite, SqliteError};

/// How many ended rows go along with each new one: more than one, so that they become fewer.
const SWEPT_AT_ONCE: u32 = 4;

/// The store of one process; clones share the database.
#[derive(Clone)]
pub struct SqliteStore {
    sqlite: Sqlite,
    policy: Policy,
    clock: Arc<dyn Clock>,
    /// The latest instant, in milliseconds since 1970, that an operation was decided at.
    latest: Arc<AtomicU64>,
}

impl SqliteStore {
    /// A store in this database.
    pub fn new(sqlite: Sqlite, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self {
            sqlite,
            policy,
            clock,
            latest: Arc::default(),
        }
    }

    /// Runs an operation on the writer thread, where the time is read too. It never runs backwards
    /// from one operation to the next: a clock that is set back stands still here until it has
    /// caught up, or until the next start.
    async fn run<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Policy, UnixMillis) -> rusqlite::Result<T> + Send + 'static,
    {
        let policy = self.policy;
        let clock = Arc::clone(&self.clock);
        let latest = Arc::clone(&self.latest);
        let timed = move |db: &Connection| {
            let read = clock.now();
            let before = UnixMillis(latest.fetch_max(read.0, Ordering::Relaxed));
            operation(db, &policy, read.max(before))
        };
        let outcome = self.sqlite.run(timed).await;
        outcome.map_err(StoreError::from)
    }
}

#[async_trait]
impl OtpStore for SqliteStore {
    async fn attest(&self, marks: &KeyMarks) -> Result<(), AttestError> {
        let marks = marks.clone();
        self.run(move |db, _, now| attest(db, now, &marks)).await?
    }

    async fn issue(&self, request: &IssueRequest) -> Result<Issued, StoreError> {
        let request = request.clone();
        let operation = move |db: &Connection, policy: &Policy, now| {
            let before = load(db, request.challenge)?;
            let mut record = before.clone();
            let budget = match policy.limits {
                Some(_) => budget::load(db, request.limit)?,
                None => Budget::default(),
            };
            let issued = record.issue(&budget, policy, now, &request);
            save(db, request.challenge, request.limit, &before, &record)?;
            sweep_challenges(db, now)?;
            Ok(issued)
        };
        self.run(operation).await
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<Check, StoreError> {
        let request = request.clone();
        let operation = move |db: &Connection, policy: &Policy, now| {
            let before = load(db, request.challenge)?;
            let mut record = before.clone();
            let spent = match policy.limits {
                Some(_) => budget::load(db, request.limit)?,
                None => Budget::default(),
            };
            let mut budget = spent.clone();
            let check = record.verify(&mut budget, policy, now, &request);
            let changed = save(db, request.challenge, request.limit, &before, &record)?;
            if !changed {
                db.prepare_cached("UPDATE dummy_write SET number = number + 1")?
                    .execute([])?;
            }
            if budget != spent {
                budget::save(db, request.limit, &budget, now)?;
            }
            Ok(check)
        };
        self.run(operation).await
    }

    async fn admit(&self, request: &AdmitRequest) -> Result<Admission, StoreError> {
        let request = *request;
        let operation = move |db: &Connection, policy: &Policy, now| {
            let Some(limits) = &policy.limits else {
                return Ok(Admission::Granted);
            };
            let mut budget = budget::load(db, request.limit)?;
            let admission = budget.admit(limits, now, request.challenge);
            if admission == Admission::Granted {
                budget::save(db, request.limit, &budget, now)?;
            }
            Ok(admission)
        };
        self.run(operation).await
    }

    async fn give_back(&self, request: &AdmitRequest) -> Result<(), StoreError> {
        let request = *request;
        let operation = move |db: &Connection, _: &Policy, now| {
            let mut budget = budget::load(db, request.limit)?;
            budget.give_back(request.challenge);
            budget::save(db, request.limit, &budget, now)
        };
        self.run(operation).await
    }

    async fn finish(&self, id: &str, ending: Ending) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.run(move |db, _, now| request::finish(db, now, &id, ending))
            .await
    }

    async fn ending(&self, id: &str) -> Result<Option<Ending>, StoreError> {
        let id = id.to_owned();
        self.run(move |db, _, now| request::ending(db, now, &id))
            .await
    }

    async fn count_unconfirmed(&self, job: &str) -> Result<u32, StoreError> {
        let job = job.to_owned();
        self.run(move |db, _, now| request::count_unconfirmed(db, now, &job))
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.sqlite.ping().await?)
    }
}

impl From<SqliteError> for StoreError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Refused(
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..),
            ) => Self::Unreadable(error.to_string()),
            SqliteError::Refused(_) | SqliteError::NotCommitted => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

fn load(db: &Connection, challenge: ChallengeId) -> rusqlite::Result<Record> {
    let row = db
        .prepare_cached("SELECT attempts, success_at, success_until FROM challenge WHERE id = ?")?
        .query_row([challenge.0], |row| {
            let success = match row.get::<_, Option<i64>>(1)? {
                Some(_) => Some(Success {
                    at: instant(row, 1)?,
                    until: instant(row, 2)?,
                }),
                None => None,
            };
            Ok((row.get(0)?, success))
        })
        .optional()?;
    let Some((attempts, success)) = row else {
        return Ok(Record::default());
    };
    let codes: rusqlite::Result<Vec<LiveCode>> = db
        .prepare_cached(
            "SELECT nonce, tag, key_id, digits, made_at, expires_at, job, requested_at, stepped
             FROM code WHERE challenge = ? ORDER BY place",
        )?
        .query_map([challenge.0], live_code)?
        .collect();
    Ok(Record {
        codes: codes?,
        attempts,
        success,
    })
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

/// Writes what changed; tells whether anything did.
fn save(
    db: &Connection,
    challenge: ChallengeId,
    limit: LimitId,
    before: &Record,
    after: &Record,
) -> rusqlite::Result<bool> {
    if before == after {
        return Ok(false);
    }
    if before.codes != after.codes {
        db.prepare_cached("DELETE FROM code WHERE challenge = ?")?
            .execute([challenge.0])?;
    }
    let Some(ends_at) = after.ends_at() else {
        db.prepare_cached("DELETE FROM challenge WHERE id = ?")?
            .execute([challenge.0])?;
        return Ok(true);
    };
    db.prepare_cached(
        "INSERT INTO challenge (id, limit_id, attempts, success_at, success_until, ends_at)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET
             attempts = excluded.attempts, success_at = excluded.success_at,
             success_until = excluded.success_until, ends_at = excluded.ends_at",
    )?
    .execute(params![
        challenge.0,
        limit.0,
        after.attempts,
        after.success.map(|success| signed(success.at)),
        after.success.map(|success| signed(success.until)),
        signed(ends_at),
    ])?;
    if before.codes != after.codes {
        insert_codes(db, challenge, &after.codes)?;
    }
    Ok(true)
}

fn insert_codes(
    db: &Connection,
    challenge: ChallengeId,
    codes: &[LiveCode],
) -> rusqlite::Result<()> {
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

fn sweep_challenges(db: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    // The codes go with their challenge (`ON DELETE CASCADE`).
    db.prepare_cached(
        "DELETE FROM challenge WHERE id IN
             (SELECT id FROM challenge WHERE ends_at <= ? ORDER BY ends_at LIMIT ?)",
    )?
    .execute(params![signed(now), SWEPT_AT_ONCE])?;
    Ok(())
}

fn attest(
    db: &Connection,
    now: UnixMillis,
    marks: &KeyMarks,
) -> rusqlite::Result<Result<(), AttestError>> {
    db.prepare_cached("DELETE FROM key_mark WHERE used_at <= ?")?
        .execute([signed(now.before(KEY_MEMORY))])?;
    let known: rusqlite::Result<Vec<(String, Vec<u8>)>> = db
        .prepare_cached("SELECT kind, value FROM key_mark")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect();
    let known = known?;
    let of_kind = |wanted| known.iter().filter(move |(kind, _)| kind == wanted);
    if of_kind("address").any(|(_, value)| *value != marks.address) {
        return Ok(Err(AttestError::OtherAddressKey));
    }
    let listed = |value: &[u8]| marks.master.iter().any(|id| id.0 == *value);
    if of_kind("master").next().is_some() && !of_kind("master").any(|(_, value)| listed(value)) {
        return Ok(Err(AttestError::OtherMasterKey));
    }
    let mut note = db.prepare_cached("INSERT OR REPLACE INTO key_mark VALUES (?, ?, ?)")?;
    note.execute(params!["address", marks.address, signed(now)])?;
    for id in &marks.master {
        note.execute(params!["master", id.0, signed(now)])?;
    }
    Ok(Ok(()))
}

/// SQLite's integers are signed; instants beyond them are some hundred million years away.
fn signed(instant: UnixMillis) -> i64 {
    i64::try_from(instant.0).unwrap_or(i64::MAX)
}

fn instant(row: &Row<'_>, column: usize) -> rusqlite::Result<UnixMillis> {
    let millis: i64 = row.get(column)?;
    u64::try_from(millis)
        .map(UnixMillis)
        .map_err(|_negative| rusqlite::Error::IntegralValueOutOfRange(column, millis))
}
