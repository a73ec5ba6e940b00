//! How the database file is opened: locked, private, brought to the version of this program.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::beside;

/// How long a commit waits for a tool that writes meanwhile.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// More than there are statements, so that each is parsed once.
const STATEMENTS_KEPT: usize = 128;

/// Only the owner may read the database.
const DATABASE_MODE: u32 = 0o600;

/// The version of the tables that this program writes (`user_version` of the file).
const VERSION: i64 = 4;

/// What brings a file from each version to the next, an empty one being version 0.
const MIGRATIONS: [&str; 4] = [
    include_str!("1.sql"),
    include_str!("2.sql"),
    include_str!("3.sql"),
    include_str!("4.sql"),
];

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

/// Takes the lock file beside the database for as long as the file lives.
pub fn lock(path: &Path) -> Result<File, OpenError> {
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

/// Opens or makes the file, and brings its tables to this version.
pub fn connect(path: &Path) -> Result<Connection, OpenError> {
    let refused = |source| OpenError::Database {
        path: path.to_owned(),
        source,
    };
    make_private(path)?;
    let mut connection = Connection::open(path).map_err(refused)?;
    connection
        .execute_batch(
            // What is deleted is written over, since deleted jobs held addresses.
            // Pages are read and written again and again: 16 MiB of them stay in memory, and the log of
            // writes may have as much before it goes into the file.
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA secure_delete = ON; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4096;",
        )
        .map_err(refused)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
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
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
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
