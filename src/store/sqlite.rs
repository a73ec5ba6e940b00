//! The store in the embedded database, for one process.
//!
//! Each operation runs whole on the writer thread: it reads the rows, lets the rules decide and
//! writes the rows, all in the commit that it is answered after.

mod budget;
mod client;
mod decisions;
mod idempotency;
mod mailbox;
mod octets;
mod pace;
mod record;
mod request;
mod sweep;
mod unresolved;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::{
    Admission, AdmitRequest, Admitted, AttestError, Check, Durability, DurabilityLevel, Ending,
    History, IssueRequest, Issued, KEY_MEMORY, OtpStore, Pace, PaceName, Paced, StoreError,
    VerifyRequest,
};
use crate::otp::address::LimitId;
use crate::otp::clock::{Clock, UnixMillis};
use crate::otp::idempotency::Repeatable;
use crate::otp::keys::KeyMarks;
use crate::otp::policy::{CLOCK_STEP, Policy};
use crate::sqlite::{OnceDurable, Prepared, Sqlite, SqliteError};

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

    /// Runs an operation on the writer thread, where the time is read too. It does not run backwards
    /// from one operation to the next: a clock that is set back a little stands still here until it
    /// has caught up. One that is set back by more than [`CLOCK_STEP`] was wrong before, and is
    /// followed: what was made meanwhile is over.
    async fn run<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Policy, UnixMillis) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run_with(|db, policy, now| Ok((operation(db, policy, now)?, None)))
            .await
    }

    /// The same for an operation that holds a prepared part.
    async fn run_with<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Policy, UnixMillis) -> rusqlite::Result<(T, Option<OnceDurable>)>
            + Send
            + 'static,
    {
        let policy = self.policy;
        let clock = Arc::clone(&self.clock);
        let latest = Arc::clone(&self.latest);
        let timed = move |db: &Connection| {
            let read = clock.now();
            let before = UnixMillis(latest.load(Ordering::Relaxed));
            let is_step = read.after(CLOCK_STEP) < before;
            let now = if is_step { read } else { read.max(before) };
            latest.store(now.0, Ordering::Relaxed);
            operation(db, &policy, now)
        };
        let outcome = self.sqlite.run_with(timed).await;
        outcome.map_err(StoreError::from)
    }

    /// Decides whether one more mail may be sent, by mailbox and client and then by the pace of the
    /// whole service, and, if so, runs the insertion of its job in the same step: either all of it
    /// is durable, or nothing is.
    pub async fn admit_with(
        &self,
        request: &AdmitRequest,
        global: Option<Pace>,
        insertion: Prepared,
    ) -> Result<Admitted, StoreError> {
        let request = request.clone();
        self.run_with(move |db, policy, now| {
            let mut admitted = decisions::admit(db, policy, now, &request)?;
            if admitted.admission != Admission::Granted {
                return Ok((admitted, None));
            }
            let paced = global
                .map(|global| pace::ask(db, now, &global))
                .transpose()?;
            if let Some(Paced::Wait(retry_after)) = paced {
                decisions::give_back(db, policy, now, &request)?;
                admitted.admission = Admission::ServiceRefused { retry_after };
                return Ok((admitted, None));
            }
            let inserted = insertion.run(db)?;
            if let Some(repeatable) = &request.repeatable {
                idempotency::note_enqueued(db, repeatable)?;
            }
            Ok((admitted, Some(inserted)))
        })
        .await
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
            let (limit, challenge) = (request.limit, request.challenge);
            let mut record = record::load(db, limit, challenge)?;
            let before = record.state.clone();
            let budget = budget::load(db, policy, limit)?;
            let issued = record.state.issue(&budget.state, policy, now, &request);
            if record.state != before {
                record::save(db, limit, challenge, &record, now)?;
            }
            Ok(issued)
        };
        self.run(operation).await
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<Check, StoreError> {
        let request = request.clone();
        self.run(move |db, policy, now| decisions::verify(db, policy, now, &request))
            .await
    }

    async fn admit(&self, request: &AdmitRequest) -> Result<Admitted, StoreError> {
        let request = request.clone();
        self.run(move |db, policy, now| decisions::admit(db, policy, now, &request))
            .await
    }

    async fn give_back(&self, request: &AdmitRequest) -> Result<(), StoreError> {
        let request = request.clone();
        self.run(move |db, policy, now| decisions::give_back(db, policy, now, &request))
            .await
    }

    async fn note_enqueued(&self, request: &Repeatable, _limit: LimitId) -> Result<(), StoreError> {
        let request = request.clone();
        self.run(move |db, _, _| idempotency::note_enqueued(db, &request))
            .await
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

    async fn pace(&self, pace: &Pace) -> Result<Paced, StoreError> {
        let pace = *pace;
        self.run(move |db, _, now| pace::ask(db, now, &pace)).await
    }

    async fn give_back_pace(&self, name: PaceName, at: UnixMillis) -> Result<(), StoreError> {
        self.run(move |db, _, _| pace::give_back(db, name, at))
            .await
    }

    async fn note_unresolved(&self, failures: i64) -> Result<History, StoreError> {
        self.run(move |db, _, now| unresolved::note(db, now, failures))
            .await
    }

    /// A commit is synced before it is answered.
    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(Durability {
            level: DurabilityLevel::Always,
            node: "the embedded database".to_owned(),
        })
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
