//! The store's contract: what is kept of clients, and for how long.

use std::time::Duration;

use rstest::rstest;

use super::store_bench::Backend::{Cluster, Redis, Sqlite};
use super::store_bench::{ALL_LIMITED, Backend, Bench};
use super::store_client::{asks, is_granted, typed_by, types};

const HOUR: Duration = Duration::from_secs(3_600);

/// How many buckets are stored.
pub async fn stored_buckets(bench: &Bench) -> usize {
    if bench.servers().is_empty() {
        let count = |db: &rusqlite::Connection| {
            db.query_row("SELECT count(*) FROM client", [], |row| {
                row.get::<_, i64>(0)
            })
        };
        return usize::try_from(bench.database().0.run(count).await.unwrap()).unwrap();
    }
    bucket_keys(bench).await.len()
}

/// The keys of all buckets, and for how many milliseconds they are kept.
async fn bucket_keys(bench: &Bench) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for server in bench.servers() {
        let mut connection = server.connect().await;
        let mut list = redis::cmd("KEYS");
        list.arg("otpost:{p:*");
        let keys: Vec<String> = list.query_async(&mut connection).await.unwrap();
        for key in keys {
            let mut left = redis::cmd("PTTL");
            let left_ms = left.arg(&key).query_async(&mut connection).await.unwrap();
            found.push((key, left_ms));
        }
    }
    found
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_client_goes_when_its_last_window_is_over(
    #[values(Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        let client = bench.client(address);
        assert!(is_granted(&*store, client, bench.who("a@example.org", address)).await);
        types(&bench, &*store, client, ann, "000000").await;
    }
    let keys = bucket_keys(&bench).await;
    assert_eq!(
        keys.len(),
        5,
        "one for each IPv4 address, three for the IPv6 address"
    );
    let hour_ms = 3_600_000;
    for (key, left_ms) in &keys {
        assert!((1..=hour_ms).contains(left_ms), "{key}: {left_ms} ms");
        let name = key.strip_prefix("otpost:{p:").unwrap();
        let (group, bucket) = name.split_once("}:").unwrap();
        assert_eq!(
            (group.len(), bucket.len()),
            (32, 32),
            "names and nothing else"
        );
    }
}

#[tokio::test]
async fn the_rows_of_clients_that_are_over_go_along_with_others() {
    let bench = Bench::open_swift(Sqlite, ALL_LIMITED).await;
    let store = bench.store().await;
    for number in 0..40 {
        let client = bench.client(&format!("192.0.2.{number}"));
        types(&bench, &*store, client, bench.ann(), "000000").await;
    }
    assert_eq!(stored_buckets(&bench).await, 40);
    bench.clock.advance(HOUR);
    for number in 40..240 {
        let client = bench.client(&format!("192.0.2.{number}"));
        types(&bench, &*store, client, bench.ann(), "000000").await;
    }
    // Of the forty that are over no more than two are left.
    let stored = stored_buckets(&bench).await;
    assert!((200..=202).contains(&stored), "{stored}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_this_version_can_not_read_is_an_error_and_no_free_pass(
    #[values(Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, client, ann) = (bench.store().await, bench.client("192.0.2.1"), bench.ann());
    types(&bench, &*store, client, ann, "000000").await;
    for server in bench.servers() {
        let mut connection = server.connect().await;
        let mut list = redis::cmd("KEYS");
        list.arg("otpost:{p:*");
        let keys: Vec<String> = list.query_async(&mut connection).await.unwrap();
        for key in keys {
            let mut set = redis::cmd("SET");
            set.arg(key).arg("\u{2}?");
            let () = set.query_async(&mut connection).await.unwrap();
        }
    }
    assert!(store.admit(&asks(client, ann)).await.is_err());
    let typed = typed_by(&bench, client, ann, "000000");
    assert!(store.verify(&typed).await.is_err());
}
