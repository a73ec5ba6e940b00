//! The embedded database: one thread owns the connection and commits all waiting operations
//! together, so that many durable writes share one fsync (group commit).
//!
//! An operation is answered only after the commit that holds it. An operation that fails is rolled
//! back alone. A lock file keeps a second process out.

mod open;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub use open::OpenError;
use open::{BUSY_TIMEOUT, connect, lock};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// The most operations that one commit holds.
const LARGEST_GROUP: usize = 512;

type Operation = Box<dyn FnOnce(&mut Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(bool) + Send>;
type Part = Box<dyn FnOnce(&Connection) -> rusqlite::Result<OnceDurable> + Send>;

/// A part of an operation, prepared where it belongs and run in the transaction of whoever is given
/// it: it is durable with the rest or not at all. Dropped unrun, it writes nothing.
pub struct Prepared(Part);

/// To be called once what was written is durable, on the writer's thread, so it must be short.
pub type OnceDurable = Box<dyn FnOnce() + Send>;

/// A handle on the database; clones share the writer thread, which ends with the last of them.
#[derive(Clone)]
pub struct Sqlite {
    operations: mpsc::UnboundedSender<Operation>,
    tally: Arc<Tally>,
}

/// What handles and writer tell each other beside the operations.
#[derive(Default)]
struct Tally {
    commits: AtomicU64,
    empty_log: AtomicBool,
}

/// An operation failed; nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// SQLite refused it.
    #[error("the embedded database refused: {0}")]
    Refused(#[from] rusqlite::Error),
    /// The group it was in could not be committed, it panicked, or the writer has ended.
    #[error("the embedded database could not commit")]
    NotCommitted,
}

impl Prepared {
    /// Will run `part`, and call what it answers once it is durable.
    pub fn new<F>(part: F) -> Self
    where
        F: FnOnce(&Connection) -> rusqlite::Result<OnceDurable> + Send + 'static,
    {
        Self(Box::new(part))
    }

    /// Runs it within an operation.
    pub fn run(self, db: &Connection) -> rusqlite::Result<OnceDurable> {
        (self.0)(db)
    }
}

impl Sqlite {
    /// Opens or makes the file, brings its tables to this version and starts the writer.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        let connection = connect(path)?;
        let (operations, waiting) = mpsc::unbounded_channel();
        let tally = Arc::new(Tally::default());
        let shared = Arc::clone(&tally);
        std::thread::Builder::new()
            .name("sqlite".to_owned())
            .spawn(move || {
                run(connection, waiting, &shared);
                drop(lock);
            })
            .map_err(|source| OpenError::File {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self { operations, tally })
    }

    /// Runs `operation` on the writer and answers once what it wrote is durable.
    pub async fn run<T, F>(&self, operation: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run_with(|db| Ok((operation(db)?, None))).await
    }

    /// Hands `operation` to the writer at once, which calls `then` when it knows whether what was
    /// written is durable: whoever asks may go away meanwhile. `then` runs on the writer's thread,
    /// so it must be short. It is dropped uncalled if `operation` was not run.
    pub fn submit<T, F, G>(&self, operation: F, then: G)
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        G: FnOnce(Result<T, SqliteError>) + Send + 'static,
        T: Send + 'static,
    {
        let boxed: Operation = Box::new(move |connection| {
            // What a panic leaves behind is rolled back with its savepoint.
            let guarded = AssertUnwindSafe(|| isolated(connection, operation));
            let outcome = catch_unwind(guarded);
            Box::new(move |committed| {
                then(match outcome {
                    Ok(Ok(value)) if committed => Ok(value),
                    Ok(Err(error)) => Err(SqliteError::Refused(error)),
                    Ok(Ok(_)) | Err(_) => Err(SqliteError::NotCommitted),
                });
            })
        });
        // The writer lives as long as its handles; if it has died, `then` is dropped.
        let _ = self.operations.send(boxed);
    }

    /// Runs an operation that holds a prepared part, which learns that it is durable even if the
    /// caller has gone meanwhile.
    pub async fn run_with<T, F>(&self, operation: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<(T, Option<OnceDurable>)> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.submit(operation, move |outcome| {
            // Whoever asked may have gone, which is its own business.
            let _ = answer.send(outcome.map(|(value, once_durable)| {
                if let Some(once_durable) = once_durable {
                    once_durable();
                }
                value
            }));
        });
        result.await.unwrap_or(Err(SqliteError::NotCommitted))
    }

    /// Answers when a write works: of a file that takes none, reads may work all the same.
    pub async fn ping(&self) -> Result<(), SqliteError> {
        let write = |db: &Connection| {
            db.prepare_cached("UPDATE dummy_write SET number = number + 1")?
                .execute([])
        };
        self.run(write).await.map(drop)
    }

    /// How many commits there were: with it a test shows that operations share them.
    pub fn commits(&self) -> u64 {
        self.tally.commits.load(Ordering::Relaxed)
    }

    /// Has the next commit empty the log of writes, before it is answered. The log keeps what was
    /// deleted until it is written over, which may be days on a quiet service.
    pub fn empty_log(&self) {
        self.tally.empty_log.store(true, Ordering::Relaxed);
    }
}

/// `otpost.db` and `keys` give `otpost.db.keys`.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

/// A savepoint, so that an operation that fails takes nothing of its group with it.
fn isolated<T>(
    connection: &Connection,
    operation: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    execute(connection, "SAVEPOINT operation")?;
    let open = Savepoint(connection);
    let value = operation(connection)?;
    execute(connection, "RELEASE operation")?;
    std::mem::forget(open);
    Ok(value)
}

/// Rolls back what its operation wrote, unless that has succeeded. If SQLite has ended the whole
/// transaction by itself, there is nothing to roll back.
struct Savepoint<'a>(&'a Connection);

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        let _ = execute(self.0, "ROLLBACK TO operation");
        let _ = execute(self.0, "RELEASE operation");
    }
}

/// Runs a statement that is parsed once: rusqlite's own savepoints are parsed each time.
fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

fn run(mut connection: Connection, mut waiting: mpsc::UnboundedReceiver<Operation>, tally: &Tally) {
    let mut streak = Streak::default();
    let mut group = Vec::with_capacity(LARGEST_GROUP);
    while waiting.blocking_recv_many(&mut group, LARGEST_GROUP) > 0 {
        if let Err(error) = execute(&connection, "BEGIN IMMEDIATE") {
            streak.failed("begin a transaction", &error);
            group.clear();
            continue;
        }
        let written = connection.total_changes();
        let answers = run_all(&mut connection, &mut group);
        let committed = match execute(&connection, "COMMIT") {
            Ok(()) => {
                // A commit of nothing works even on a disk that is full.
                if connection.total_changes() > written {
                    streak.worked();
                }
                true
            }
            Err(error) => {
                streak.failed("commit", &error);
                let _ = execute(&connection, "ROLLBACK");
                false
            }
        };
        tally
            .commits
            .fetch_add(u64::from(committed), Ordering::Relaxed);
        if tally.empty_log.swap(false, Ordering::Relaxed) {
            empty_log(&connection);
        }
        for answer in answers {
            // Whoever asked panics alone.
            let _ = catch_unwind(AssertUnwindSafe(|| answer(committed)));
        }
    }
}

/// A tool that reads meanwhile hinders it. Nobody waits for that: the next time does it.
fn empty_log(connection: &Connection) {
    let _ = connection.busy_timeout(Duration::ZERO);
    let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    let _ = connection.busy_timeout(BUSY_TIMEOUT);
}

/// Tells the first of many failures in a row, and the end of them.
#[derive(Default)]
struct Streak {
    is_failing: bool,
}

impl Streak {
    fn failed(&mut self, step: &str, error: &rusqlite::Error) {
        if !self.is_failing {
            tracing::error!(%error, "the embedded database could not {step}");
        }
        self.is_failing = true;
    }

    fn worked(&mut self) {
        if self.is_failing {
            tracing::info!("the embedded database commits again");
        }
        self.is_failing = false;
    }
}

/// Runs the group in the transaction that has begun, up to the operation at which it ends, if any:
/// SQLite ends it by itself when the disk is full or fails, and each further operation would be
/// committed alone, although the group is answered that it was not.
fn run_all(connection: &mut Connection, group: &mut Vec<Operation>) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(group.len());
    for operation in group.drain(..) {
        answers.push(operation(connection));
        if connection.is_autocommit() {
            break;
        }
    }
    answers
}

#[cfg(test)]
mod tests;
