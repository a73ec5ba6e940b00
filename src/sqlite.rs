//! The embedded database: one thread owns the connection and commits all waiting operations
//! together, so that many durable writes share one fsync (group commit).
//!
//! An operation is answered only after the commit that holds it. An operation that fails is rolled
//! back alone. A lock file keeps a second process out.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// The most operations that one commit holds.
const LARGEST_GROUP: usize = 512;

/// The version of the tables that this program writes (`user_version` of the file).
const VERSION: i64 = 2;

/// What brings a file from each version to the next, an empty one being version 0.
const MIGRATIONS: [&str; 2] = [include_str!("sqlite/1.sql"), include_str!("sqlite/2.sql")];

type Operation = Box<dyn FnOnce(&mut Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(bool) + Send>;

/// A handle on the database; clones share the writer thread, which ends with the last of them.
#[derive(Clone)]
pub struct Sqlite {
    operations: mpsc::UnboundedSender<Operation>,
    commits: Arc<AtomicU64>,
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
    /// The group it was in could not be committed, or the writer has ended.
    #[error("the embedded database could not commit")]
    NotCommitted,
}

impl Sqlite {
    /// Opens or makes the file, brings its tables to this version and starts the writer.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        let connection = connect(path)?;
        let (operations, waiting) = mpsc::unbounded_channel();
        let commits = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&commits);
        std::thread::Builder::new()
            .name("sqlite".to_owned())
            .spawn(move || {
                run(connection, waiting, &counter);
                drop(lock);
            })
            .map_err(|source| OpenError::File {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            operations,
            commits,
        })
    }

    /// Runs `operation` on the writer and answers once what it wrote is durable.
    pub async fn run<T, F>(&self, operation: F) -> Result<T, SqliteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.submit(operation, move |outcome| {
            // Whoever asked may have gone, which is its own business.
            let _ = answer.send(outcome);
        });
        result.await.unwrap_or(Err(SqliteError::NotCommitted))
    }

    /// Hands `operation` to the writer at once, which calls `then` when it knows whether what was
    /// written is durable: whoever asks may go away meanwhile. `then` runs on the writer's thread,
    /// so it must be short. It is dropped uncalled if there was no transaction at all.
    pub fn submit<T, F, G>(&self, operation: F, then: G)
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        G: FnOnce(Result<T, SqliteError>) + Send + 'static,
        T: Send + 'static,
    {
        let boxed: Operation = Box::new(move |connection| {
            let outcome = isolated(connection, operation);
            Box::new(move |committed| {
                then(match outcome {
                    Ok(value) if committed => Ok(value),
                    Ok(_) => Err(SqliteError::NotCommitted),
                    Err(error) => Err(SqliteError::Refused(error)),
                });
            })
        });
        // The writer lives as long as its handles; if it has died, `then` is dropped.
        let _ = self.operations.send(boxed);
    }

    /// How many commits there were: with it a test shows that operations share them.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
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
    let mut connection = Connection::open(path).map_err(refused)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;",
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

fn run(
    mut connection: Connection,
    mut waiting: mpsc::UnboundedReceiver<Operation>,
    commits: &AtomicU64,
) {
    let mut group = Vec::with_capacity(LARGEST_GROUP);
    while waiting.blocking_recv_many(&mut group, LARGEST_GROUP) > 0 {
        if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
            tracing::error!(%error, "the embedded database could not begin a transaction");
            group.clear();
            continue;
        }
        let answers: Vec<Answer> = group
            .drain(..)
            .map(|operation| operation(&mut connection))
            .collect();
        let committed = match connection.execute_batch("COMMIT") {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the embedded database could not commit");
                let _ = connection.execute_batch("ROLLBACK");
                false
            }
        };
        commits.fetch_add(u64::from(committed), Ordering::Relaxed);
        for answer in answers {
            answer(committed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        (folder, path)
    }

    async fn count(sqlite: &Sqlite) -> i64 {
        sqlite
            .run(|db| db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn an_operation_that_fails_is_undone_alone() {
        let (_folder, path) = fresh();
        let sqlite = Sqlite::open(&path).unwrap();
        sqlite
            .run(|db| db.execute_batch("CREATE TABLE t (n INTEGER UNIQUE)"))
            .await
            .unwrap();
        let good = sqlite.run(|db| db.execute("INSERT INTO t VALUES (1)", []));
        let bad = sqlite.run(|db| {
            db.execute("INSERT INTO t VALUES (2)", [])?;
            db.execute("INSERT INTO t VALUES (1)", [])
        });
        let (good, bad) = tokio::join!(good, bad);
        assert!(good.is_ok());
        assert!(matches!(bad, Err(SqliteError::Refused(_))));
        assert_eq!(count(&sqlite).await, 1);
    }

    #[tokio::test]
    async fn a_second_opener_is_refused_until_the_first_is_gone() {
        let (_folder, path) = fresh();
        let first = Sqlite::open(&path).unwrap();
        assert!(matches!(Sqlite::open(&path), Err(OpenError::InUse(_))));
        let (gone, wait) = std::sync::mpsc::channel::<()>();
        let hold = move |_: &Connection| {
            drop(gone);
            Ok(())
        };
        first.run(hold).await.unwrap();
        drop(first);
        assert!(wait.recv().is_err());
        while matches!(Sqlite::open(&path), Err(OpenError::InUse(_))) {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a_file_of_a_newer_version_is_refused() {
        let (_folder, path) = fresh();
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(
            Sqlite::open(&path),
            Err(OpenError::Newer { found: 99, .. })
        ));
    }

    #[tokio::test]
    async fn waiting_operations_share_a_commit() {
        let (_folder, path) = fresh();
        let sqlite = Sqlite::open(&path).unwrap();
        sqlite
            .run(|db| db.execute_batch("CREATE TABLE t (n INTEGER)"))
            .await
            .unwrap();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let held = sqlite.run(move |_| Ok(gate.recv().is_ok()));
        let writes =
            (0..100).map(|n| sqlite.run(move |db| db.execute("INSERT INTO t VALUES (?)", [n])));
        let before = sqlite.commits();
        let all = async {
            let writes = futures::future::join_all(writes);
            let release = async move { release.send(()).unwrap() };
            tokio::join!(writes, release).0
        };
        let (held, written) = tokio::join!(held, all);
        assert!(held.unwrap());
        assert!(written.into_iter().all(|outcome| outcome.is_ok()));
        assert!(
            sqlite.commits() - before <= 2,
            "{} commits",
            sqlite.commits() - before
        );
        assert_eq!(count(&sqlite).await, 100);
    }
}
