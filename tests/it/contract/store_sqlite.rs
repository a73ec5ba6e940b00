//! What only the embedded store promises: that it tells when no write works, and that its time
//! never runs backwards.

use std::time::Duration;

use otpost::store::Verdict;
use rusqlite::Connection;

use super::store_bench::Backend::Sqlite;
use super::store_bench::{Bench, LIFETIME};

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_fails_while_no_write_works() {
    let bench = Bench::open(Sqlite).await;
    let store = bench.store().await;
    store.ping().await.unwrap();
    let database = Connection::open(bench.database().1).unwrap();
    database
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE UPDATE ON dummy_write
             BEGIN SELECT RAISE(ABORT, 'no write works'); END",
        )
        .unwrap();
    assert!(store.ping().await.is_err());
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_brings_no_ended_code_back() {
    let bench = Bench::open(Sqlite).await;
    let store = bench.store().await;
    let mailed = bench.issue(&*store, bench.ann(), "job").await;
    bench.clock.advance(LIFETIME);
    // The store learns what time it is.
    assert_eq!(store.ending("request").await.unwrap(), None);
    bench.clock.set_back(Duration::from_secs(60));
    let verdict = bench.verify(&*store, bench.ann(), &mailed.code).await;
    assert_ne!(verdict, Verdict::Correct);
}
