//! What only the embedded queue promises: its file, and what it does when that can't be written.

use otpost::queue::{Counts, Outcome};
use rusqlite::Connection;
use serde_json::json;

use super::bench::{Backend, Bench, Work, add, asking, counts_reach, deciding, within};

/// Makes the write that a ping does fail, as all writes do on a full disk.
const REFUSE: &str = "CREATE TRIGGER refuse BEFORE UPDATE ON dummy_write
     BEGIN SELECT RAISE(ABORT, 'no write works'); END";

fn insert(database: &Connection, id: &str, version: u64, data: &str) {
    let row = (id, version.to_string(), data);
    database
        .execute(
            "INSERT INTO job (id, version, data, requested_at, run_at, attempts, state)
             VALUES (?1, CAST(?2 AS INTEGER), ?3, 0, 0, 0, 'waiting')",
            row,
        )
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_newer_version_is_left_alone() {
    let bench = Bench::new(Backend::Sqlite).await;
    drop(bench.open().await);
    let database = Connection::open(bench.database()).unwrap();
    insert(&database, "newer", 2, "{}");
    insert(&database, "unreadable", 1, "{");
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| Outcome::Done);
    let work = Work::start(&queue, handler);
    let job = within(told.recv()).await.unwrap();
    assert_eq!((job.id.as_str(), &job.data), ("unreadable", &json!(null)));
    counts_reach(&queue, Counts::default()).await;
    work.stop().await;
    assert!(told.try_recv().is_err());
    let left: String = database
        .query_row("SELECT id FROM job", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, "newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_can_not_clean_at_its_end_has_not_failed() {
    let bench = Bench::new(Backend::Sqlite).await;
    let queue = bench.open().await;
    let (handler, _told) = deciding(|_| Outcome::Done);
    let work = Work::start(&queue, handler);
    let database = Connection::open(bench.database()).unwrap();
    database.execute_batch("DROP TABLE job").unwrap();
    assert!(queue.clean().await.is_err());
    work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_can_not_be_written_is_written_later_and_the_job_does_not_run_again() {
    let bench = Bench::new(Backend::Sqlite).await;
    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    add(&queue).await;
    let attempt = attempts.next().await;
    let database = Connection::open(bench.database()).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    attempt.done();
    // The writer waits for its turn, gives up, and so refuses this question, too.
    assert!(within(queue.ping()).await.is_err());
    assert!(attempts.none_yet());
    database.execute_batch("COMMIT").unwrap();
    counts_reach(&queue, Counts::default()).await;
    work.stop().await;
    assert!(attempts.none_yet());
    let left: i64 = database
        .query_row("SELECT count(*) FROM job", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_fails_while_no_write_works() {
    let bench = Bench::new(Backend::Sqlite).await;
    let queue = bench.open().await;
    queue.ping().await.unwrap();
    let database = Connection::open(bench.database()).unwrap();
    database.execute_batch(REFUSE).unwrap();
    assert!(queue.ping().await.is_err());
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    queue.ping().await.unwrap();
}

/// Deleted rows stay in free pages, and in the log of writes, unless they are written over.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_job_that_is_done_is_left_in_the_files_after_cleaning() {
    let bench = Bench::new(Backend::Sqlite).await;
    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    add(&queue).await;
    let attempt = attempts.next().await;
    let is_there = || {
        let read = |name: &str| std::fs::read(bench.database().with_file_name(name)).unwrap();
        let name = bench
            .database()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let files = [read(&name), read(&format!("{name}-wal"))].concat();
        files.windows(11).any(|window| window == b"example.org")
    };
    assert!(is_there());
    attempt.done();
    counts_reach(&queue, Counts::default()).await;
    queue.clean().await.unwrap();
    assert!(!is_there());
    work.stop().await;
}
