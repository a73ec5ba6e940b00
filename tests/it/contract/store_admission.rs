//! The store's contract: how many mails one mailbox may get.

use std::time::Duration;

use otpost::store::Admission;
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench, LIMITED, LIMITS, Who, admit};

fn refused(retry_after: Duration) -> Admission {
    Admission::Refused { retry_after }
}

/// Ann in some context.
fn context(bench: &Bench, number: u32) -> Who {
    bench.who("ann@example.org", &format!("context {number}"))
}

#[rstest]
#[tokio::test]
async fn a_second_mail_waits_for_the_cooldown_of_its_context(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let store = bench.store().await;
    let (first, other) = (context(&bench, 1), context(&bench, 2));
    assert_eq!(admit(&*store, &first.mail()).await, Admission::Granted);
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(
        admit(&*store, &first.mail()).await,
        refused(Duration::from_secs(20))
    );
    assert_eq!(admit(&*store, &other.mail()).await, Admission::Granted);
    bench.clock.advance(Duration::from_secs(20));
    assert_eq!(admit(&*store, &first.mail()).await, Admission::Granted);
}

#[rstest]
#[tokio::test]
async fn the_mails_of_an_hour_and_a_day_count_over_all_spellings_and_contexts(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let store = bench.store().await;
    let spellings = ["ann@example.org", "ANN@example.org", "ann+1@example.org"];
    let mut granted = 0;
    for minute in 0..24 * 60 {
        let spelling = spellings[minute % spellings.len()];
        let who = bench.who(spelling, &format!("context {minute}"));
        let in_the_hour = granted;
        granted += u32::from(admit(&*store, &who.mail()).await == Admission::Granted);
        if minute == 59 {
            assert_eq!(in_the_hour, LIMITS.per_hour);
        }
        bench.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(granted, LIMITS.per_day);
    let other = bench.who("bob@example.org", "");
    assert_eq!(admit(&*store, &other.mail()).await, Admission::Granted);
}

#[rstest]
#[tokio::test]
async fn a_refused_mail_is_not_counted(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    for _ in 0..40 {
        admit(&*store, &ann.mail()).await;
        bench.clock.advance(Duration::from_secs(1));
    }
    // Two were granted, at 0 s and 30 s.
    for number in 0..3 {
        let who = context(&bench, number);
        assert_eq!(admit(&*store, &who.mail()).await, Admission::Granted);
    }
    let wait = refused(Duration::from_secs(3_560));
    assert_eq!(admit(&*store, &context(&bench, 4).mail()).await, wait);
}

#[rstest]
#[tokio::test]
async fn a_mail_that_is_given_back_counts_no_more(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    for _ in 0..20 {
        assert_eq!(admit(&*store, &ann.mail()).await, Admission::Granted);
        store.give_back(&ann.mail()).await.unwrap();
    }
    store.give_back(&ann.mail()).await.unwrap();
    assert_eq!(admit(&*store, &ann.mail()).await, Admission::Granted);
}
