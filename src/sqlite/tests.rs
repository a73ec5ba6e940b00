//! What the group commit promises, in the small.

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

/// A database with a table, and the writer held up so that what follows is one group.
async fn held(path: &Path) -> (Sqlite, std::sync::mpsc::Sender<()>) {
    let sqlite = Sqlite::open(path).unwrap();
    sqlite
        .run(|db| db.execute_batch("CREATE TABLE t (n INTEGER)"))
        .await
        .unwrap();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    sqlite.submit(move |_| Ok(gate.recv().is_ok()), drop);
    (sqlite, release)
}

fn insert(sqlite: &Sqlite, n: i64) -> oneshot::Receiver<Result<usize, SqliteError>> {
    let (answer, result) = oneshot::channel();
    sqlite.submit(
        move |db| db.execute("INSERT INTO t VALUES (?)", [n]),
        move |outcome| drop(answer.send(outcome)),
    );
    result
}

#[tokio::test]
async fn nothing_of_a_group_is_kept_after_its_transaction_has_ended_early() {
    let (_folder, path) = fresh();
    let (sqlite, release) = held(&path).await;
    let before = insert(&sqlite, 1);
    // SQLite itself does this when the disk is full or fails.
    sqlite.submit(|db| db.execute_batch("ROLLBACK"), drop);
    let after = [insert(&sqlite, 2), insert(&sqlite, 3)];
    release.send(()).unwrap();
    assert!(!matches!(before.await, Ok(Ok(_))));
    for outcome in after {
        assert!(!matches!(outcome.await, Ok(Ok(_))));
    }
    assert_eq!(count(&sqlite).await, 0);
    insert(&sqlite, 4).await.unwrap().unwrap();
    assert_eq!(count(&sqlite).await, 1);
}

#[tokio::test]
async fn an_operation_that_panics_is_undone_alone() {
    let (_folder, path) = fresh();
    let (sqlite, release) = held(&path).await;
    let before = insert(&sqlite, 1);
    let panics = sqlite.run(|db| -> rusqlite::Result<()> {
        db.execute("INSERT INTO t VALUES (2)", [])?;
        panic!("on purpose");
    });
    let after = async { insert(&sqlite, 3).await };
    let release = async move { release.send(()).unwrap() };
    let (panicked, after, ()) = tokio::join!(panics, after, release);
    assert!(matches!(panicked, Err(SqliteError::NotCommitted)));
    assert!(matches!(before.await, Ok(Ok(1))));
    assert!(matches!(after, Ok(Ok(1))));
    assert_eq!(count(&sqlite).await, 2);
}

#[tokio::test]
async fn an_answer_that_panics_does_not_end_the_writer() {
    let (_folder, path) = fresh();
    let (sqlite, release) = held(&path).await;
    sqlite.submit(|_| Ok(()), |_| panic!("on purpose"));
    release.send(()).unwrap();
    insert(&sqlite, 1).await.unwrap().unwrap();
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

#[tokio::test]
async fn a_ping_is_a_write() {
    let (_folder, path) = fresh();
    let sqlite = Sqlite::open(&path).unwrap();
    sqlite.ping().await.unwrap();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE UPDATE ON dummy_write
             BEGIN SELECT RAISE(ABORT, 'no write works'); END",
        )
        .unwrap();
    assert!(matches!(sqlite.ping().await, Err(SqliteError::Refused(_))));
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    sqlite.ping().await.unwrap();
}

#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_streak_of_failures_is_told_once_and_so_is_its_end() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut streak = Streak::default();
        streak.worked();
        for _ in 0..2 {
            for _ in 0..100 {
                streak.failed("commit", &rusqlite::Error::InvalidQuery);
            }
            streak.worked();
            streak.worked();
        }
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("could not commit").count(), 2, "{text}");
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[tokio::test]
async fn a_tool_that_reads_holds_up_nobody_when_the_log_is_emptied() {
    let (_folder, path) = fresh();
    let sqlite = Sqlite::open(&path).unwrap();
    let tool = Connection::open(&path).unwrap();
    tool.execute_batch("BEGIN; SELECT number FROM dummy_write;")
        .unwrap();
    let log = || {
        std::fs::metadata(path.with_extension("db-wal"))
            .unwrap()
            .len()
    };
    sqlite.empty_log();
    let answered = tokio::time::timeout(BUSY_TIMEOUT / 2, sqlite.ping());
    answered.await.unwrap().unwrap();
    assert!(log() > 0, "the tool still reads it");
    tool.execute_batch("COMMIT").unwrap();
    sqlite.empty_log();
    sqlite.ping().await.unwrap();
    assert_eq!(log(), 0);
}

#[tokio::test]
async fn nobody_but_the_owner_may_read_a_new_database_its_log_and_its_index() {
    use std::os::unix::fs::PermissionsExt;

    let (_folder, path) = fresh();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let sqlite = Sqlite::open(&path).unwrap();
    sqlite
        .run(|db| db.execute_batch("CREATE TABLE t (n INTEGER)"))
        .await
        .unwrap();
    for end in ["", "-wal", "-shm"] {
        let file = PathBuf::from(format!("{}{end}", path.display()));
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let (_folder, given) = fresh();
    std::fs::write(&given, "").unwrap();
    std::fs::set_permissions(&given, PermissionsExt::from_mode(0o640)).unwrap();
    let _sqlite = Sqlite::open(&given).unwrap();
    assert_eq!(mode(&given), 0o640);
}
