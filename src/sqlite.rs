//! The embedded database: one thread owns the connection and commits all waiting operations
//! together, so that many durable writes share one fsync (group commit).
//!
//! An operation is answered only after the commit that holds it. An operation that fails is rolled
//! back alone. A lock file keeps a second process out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// The most operations that one commit holds.
const LARGEST_GROUP: usize = 512;

/// Only the owner may read the database.
const DATABASE_MODE: u32 = 0o600;

/// The version of the tables that this program writes (`user_version` of the file).
const VERSION: i64 = 3;

/// What brings a file from each version to the next, an empty one being version 0.
const MIGRATIONS: [&str; 3] = [
    include_str!("sqlite/1.sql"),
    include_str!("sqlite/2.sql"),
    include_str!("sqlite/3.sql"),
];

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

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "`{0}` is in use by another process; the embedded store serves one process, several need Redis"
    )]
    InUse(PathBuf),
    /// A newer version of otpost wrote it.
    #[error(
        "`{path}` has data version {found}, this program knows versions up to {VERSION}; run the newer program"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// The file system refused.
    #[error("can't open `{path}`")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("can't use `{path}` as a database")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
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

/// Takes the lock file beside the database for as long as the file lives.
fn lock(path: &Path) -> Result<File, OpenError> {
    let beside = beside(path, "lock");
    let refused = |source| OpenError::File {
        path: beside.clone(),
        source,
    };
    let file = File::create(&beside).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}

/// `otpost.db` and `keys` give `otpost.db.keys`.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let refused = |source| OpenError::Database {
        path: path.to_owned(),
        source,
    };
    make_private(path)?;
    let mut connection = Connection::open(path).map_err(refused)?;
    connection
        .execute_batch(
            // What is deleted is written over, since deleted jobs held addresses.
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;
             PRAGMA secure_delete = ON;",
        )
        .map_err(refused)?;
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(refused)?;
    if found > VERSION {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    migrate(&mut connection, found).map_err(refused)?;
    Ok(connection)
}

/// Makes a new database a file that only its owner may read, since waiting jobs hold addresses. Its
/// log and index get the same mode from SQLite. One that is there keeps the mode that it was given.
fn make_private(path: &Path) -> Result<(), OpenError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(DATABASE_MODE)
        .open(path);
    match made {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => Err(OpenError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    for (version, step) in (1..)
        .zip(MIGRATIONS)
        .filter(|(version, _)| *version > found)
    {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

/// A savepoint, so that an operation that fails takes nothing of its group with it.
fn isolated<T>(
    connection: &mut Connection,
    operation: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let savepoint = connection.savepoint()?;
    let value = operation(&savepoint)?;
    savepoint.commit()?;
    Ok(value)
}

fn run(mut connection: Connection, mut waiting: mpsc::UnboundedReceiver<Operation>, tally: &Tally) {
    let mut streak = Streak::default();
    let mut group = Vec::with_capacity(LARGEST_GROUP);
    while waiting.blocking_recv_many(&mut group, LARGEST_GROUP) > 0 {
        if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
            streak.failed("begin a transaction", &error);
            group.clear();
            continue;
        }
        let written = connection.total_changes();
        let answers = run_all(&mut connection, &mut group);
        let committed = match connection.execute_batch("COMMIT") {
            Ok(()) => {
                // A commit of nothing works even on a disk that is full.
                if connection.total_changes() > written {
                    streak.worked();
                }
                true
            }
            Err(error) => {
                streak.failed("commit", &error);
                let _ = connection.execute_batch("ROLLBACK");
                false
            }
        };
        tally
            .commits
            .fetch_add(u64::from(committed), Ordering::Relaxed);
        if tally.empty_log.swap(false, Ordering::Relaxed) {
            // A tool that reads meanwhile hinders it; then the next one does it.
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
        for answer in answers {
            // Whoever asked panics alone.
            let _ = catch_unwind(AssertUnwindSafe(|| answer(committed)));
        }
    }
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
