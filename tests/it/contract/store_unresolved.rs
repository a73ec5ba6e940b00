//! The store's contract: wrong codes of the whole service that no success followed.

use std::time::Duration;

use otpost::otp::breaker::HOURS_KEPT;
use otpost::store::{History, OtpStore, StoreError};
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench, POLICY, other_than};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

async fn note(store: &dyn OtpStore, failures: i64) -> History {
    store.note_unresolved(failures).await.unwrap()
}

#[rstest]
#[tokio::test]
async fn what_all_processes_note_is_one_sum(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (one, other) = (bench.store().await, bench.store().await);
    assert_eq!(note(&*one, 0).await, History::default());
    assert_eq!(note(&*one, 300).await.last_day, 300);
    assert_eq!(note(&*other, 250).await.last_day, 550);
    bench.clock.advance(3 * HOUR);
    assert_eq!(note(&*other, -50).await.last_day, 500);
    assert_eq!(note(&*one, 0).await.last_day, 500);
}

#[rstest]
#[tokio::test]
async fn a_days_failures_become_usual_and_are_forgotten_after_eight_days(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    for day in 0..8 {
        note(&*store, 100 + day).await;
        bench.clock.advance(DAY);
    }
    // The seven days before had 101 to 107; then ever more of them had none.
    for usual_day in [104, 104, 104, 104, 0, 0, 0, 0] {
        let expected = History {
            last_day: 0,
            usual_day,
        };
        assert_eq!(note(&*store, 0).await, expected);
        bench.clock.advance(DAY);
    }
}

#[rstest]
#[tokio::test]
async fn a_day_is_over_after_24_hours(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    note(&*store, 600).await;
    bench.clock.advance(23 * HOUR);
    assert!(note(&*store, 0).await.is_too_much());
    bench.clock.advance(HOUR);
    assert!(!note(&*store, 0).await.is_too_much());
}

#[rstest]
#[tokio::test]
async fn nothing_grows_beyond_the_hours_that_are_kept(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_swift(backend, POLICY).await;
    let store = bench.store().await;
    for _ in 0..2 * HOURS_KEPT {
        note(&*store, 1).await;
        bench.clock.advance(HOUR);
    }
    let history = note(&*store, 0).await;
    assert_eq!((history.last_day, history.usual_day), (23, 24));
    if bench.is_redis() {
        let mut connection = bench.server().connect().await;
        let (bytes, left): (u64, i64) = redis::pipe()
            .strlen("otpost:{global}:unresolved")
            .pttl("otpost:{global}:unresolved")
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!(bytes < 10 * HOURS_KEPT, "{bytes}");
        assert!((1..=8 * 24 * 3_600_000).contains(&left), "{left}");
    } else {
        let count = |db: &rusqlite::Connection| {
            db.query_row("SELECT count(*) FROM unresolved", [], |row| {
                row.get::<_, i64>(0)
            })
        };
        let (sqlite, _) = bench.database();
        assert!(sqlite.run(count).await.unwrap() <= i64::try_from(HOURS_KEPT).unwrap());
    }
}

#[tokio::test]
async fn the_embedded_store_keeps_failures_over_a_restart() {
    let mut bench = Bench::open(Sqlite).await;
    note(&*bench.store().await, 600).await;
    bench.reopen();
    assert_eq!(note(&*bench.store().await, 1).await.last_day, 601);
}

#[tokio::test]
async fn redis_keeps_failures_over_a_restart() {
    let mut bench = Bench::open(Redis).await;
    note(&*bench.store().await, 600).await;
    bench.server_mut().kill();
    bench.server_mut().restart().await;
    assert_eq!(note(&*bench.store().await, 1).await.last_day, 601);
}

#[tokio::test]
async fn failures_of_an_unknown_form_are_an_error_and_stay() {
    let bench = Bench::open(Redis).await;
    let store = bench.store().await;
    let mut connection = bench.server().connect().await;
    for value in [&b"\x02anything"[..], b"\x01\xc1", b"", b"\x01\x05"] {
        let () = redis::cmd("SET")
            .arg(&[b"otpost:{global}:unresolved", value])
            .query_async(&mut connection)
            .await
            .unwrap();
        let noted = store.note_unresolved(5).await;
        assert!(matches!(noted, Err(StoreError::Unreadable(_))), "{noted:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a_success_tells_how_many_wrong_codes_it_resolves(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(0, 1, 4)] wrong: u32,
) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job").await;
    for _ in 0..wrong {
        let request = bench.typed(ann, &other_than(&[&mailed.code]));
        assert_eq!(store.verify(&request).await.unwrap().resolved, 0);
    }
    let right = bench.typed(ann, &mailed.code);
    assert_eq!(store.verify(&right).await.unwrap().resolved, wrong);
    assert_eq!(store.verify(&right).await.unwrap().resolved, 0);
}

#[rstest]
#[tokio::test]
async fn a_success_resolves_nothing_of_codes_that_died(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let dead = bench.issue(&*store, ann, "job 1").await;
    for _ in 0..5 {
        bench.verify(&*store, ann, &other_than(&[&dead.code])).await;
    }
    let next = bench.issue(&*store, ann, "job 2").await;
    let right = bench.typed(ann, &next.code);
    assert_eq!(store.verify(&right).await.unwrap().resolved, 0);
}
