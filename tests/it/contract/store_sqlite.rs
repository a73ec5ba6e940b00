//! What only the embedded store promises: that it tells when no write works, that its time never runs
//! backwards, and that it removes rows itself.

use std::time::Duration;

use otpost::store::Verdict;
use rusqlite::Connection;

use super::store_bench::Backend::Sqlite;
use super::store_bench::{Bench, LIFETIME};
use super::store_durability::ENDING;

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

#[tokio::test]
async fn rows_of_live_codes_stay_whatever_is_written_beside_them() {
    let bench = Bench::open(Sqlite).await;
    let store = bench.store().await;
    let names: Vec<String> = (0..80)
        .map(|number| format!("{number}@example.org"))
        .collect();
    let (firsts, others) = names.split_at(40);
    let mut codes = Vec::new();
    for name in firsts {
        let mailed = bench.issue(&*store, bench.who(name, ""), "job").await;
        codes.push(mailed.code);
    }
    bench.clock.advance(LIFETIME * 99 / 100);
    // Each of these looks whether the rows behind its own are over.
    for name in others {
        bench.issue(&*store, bench.who(name, ""), "job").await;
    }
    for (name, code) in firsts.iter().zip(&codes) {
        let verdict = bench.verify(&*store, bench.who(name, ""), code).await;
        assert_eq!(verdict, Verdict::Correct, "{name}");
    }
}

#[tokio::test]
async fn rows_of_the_embedded_store_that_are_over_go_away() {
    let bench = Bench::open(Sqlite).await;
    let store = bench.store().await;
    let (_, path) = bench.database();
    let second = rusqlite::Connection::open(path).unwrap();
    let rows = |table: &str| -> u32 {
        second
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })
            .unwrap()
    };
    let mut most = 0;
    for number in 0..100 {
        let name = format!("{number}@example.org");
        let who = bench.who(&name, "");
        bench.issue(&*store, who, "job").await;
        // Ids are spread evenly, as those of requests are.
        let id = who.challenge.to_string();
        store.finish(&id, ENDING).await.unwrap();
        let other = bench.who(&name, "other").challenge.to_string();
        store.count_unconfirmed(&other).await.unwrap();
        bench.clock.advance(Duration::from_secs(2 * 60 * 60));
        most = most.max(rows("mailbox"));
        assert!(rows("request") <= 2 * 20, "{}", rows("request"));
    }
    assert!(most <= 8, "{most}");
    // Those of one mailbox stand together, and go all the same.
    for context in 0..200 {
        let who = bench.who("ann@example.org", &context.to_string());
        bench.issue(&*store, who, "job").await;
        bench.clock.advance(Duration::from_secs(60));
    }
    // Eleven live ones, and no more than as many of those that are over.
    assert!(rows("mailbox") <= 2 * 11, "{}", rows("mailbox"));
}
