//! The store's contract: what simultaneous calls come to. The embedded database has one writer, on
//! which the stores of the callers take turns.

use std::sync::Arc;
use std::time::Duration;

use otpost::otp::policy::{Policy, Resend};
use otpost::store::{Cause, Issued, OtpStore, Verdict};
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench, POLICY, Who, other_than};
use super::store_callers::{at_once, stores};

/// All of `codes` typed at once.
async fn verify_at_once(
    bench: &Bench,
    stores: &[Arc<dyn OtpStore>],
    who: Who,
    codes: &[&str],
) -> Vec<Verdict> {
    let requests = codes.iter().map(|code| bench.typed(who, code)).collect();
    at_once(stores, requests, |store, request| async move {
        store.verify(&request).await.unwrap().verdict
    })
    .await
}

fn count(verdicts: &[Verdict], wanted: Verdict) -> usize {
    verdicts.iter().filter(|found| **found == wanted).count()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_simultaneous_right_codes_give_exactly_one_success(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let stores = stores(&bench).await;
    for round in 0..200 {
        let who = bench.who("ann@example.org", &format!("round {round}"));
        let mailed = bench.issue(&*stores[0], who, "job").await;
        let verdicts = verify_at_once(&bench, &stores, who, &[mailed.code.as_str(); 50]).await;
        assert_eq!(
            count(&verdicts, Verdict::Correct),
            1,
            "round {round}: {verdicts:?}"
        );
        assert_eq!(
            count(&verdicts, Verdict::Incorrect(Cause::NoLiveCode)),
            49,
            "round {round}"
        );
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn either_of_two_live_codes_gives_one_success_among_fifty_calls(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let stores = stores(&bench).await;
    for round in 0..20 {
        let who = bench.who("ann@example.org", &format!("round {round}"));
        let first = bench.issue(&*stores[0], who, "job 1").await.code;
        bench.clock.advance(Duration::from_secs(301));
        let second = bench.issue(&*stores[0], who, "job 2").await.code;
        let codes: Vec<&str> = [first.as_str(), second.as_str()].repeat(25);
        let verdicts = verify_at_once(&bench, &stores, who, &codes).await;
        assert_eq!(count(&verdicts, Verdict::Correct), 1, "round {round}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_simultaneous_wrong_codes_count_exactly_five_times(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let stores = stores(&bench).await;
    for round in 0..20 {
        let who = bench.who("ann@example.org", &format!("round {round}"));
        let mailed = bench.issue(&*stores[0], who, "job").await;
        let wrong = other_than(&[&mailed.code]);
        let verdicts = verify_at_once(&bench, &stores, who, &[wrong.as_str(); 50]).await;
        assert_eq!(
            count(&verdicts, Verdict::Incorrect(Cause::Wrong)),
            5,
            "round {round}"
        );
        assert_eq!(
            count(&verdicts, Verdict::Incorrect(Cause::NoLiveCode)),
            45,
            "round {round}"
        );
        let late = bench.verify(&*stores[0], who, &mailed.code).await;
        assert_eq!(late, Verdict::Incorrect(Cause::NoLiveCode), "round {round}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_simultaneous_jobs_give_one_code(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(Resend::Keep, Resend::Rotate)] resend: Resend,
) {
    let bench = Bench::open_with(backend, Policy { resend, ..POLICY }).await;
    let stores = stores(&bench).await;
    for round in 0..20 {
        let who = bench.who("ann@example.org", &format!("round {round}"));
        let requests = (0..20).map(|number| bench.request(who, &format!("job {number}")));
        let issued: Vec<Issued> =
            at_once(&stores, requests.collect(), |store, request| async move {
                store.issue(&request).await.unwrap()
            })
            .await;
        assert!(
            issued.iter().all(|each| *each == issued[0]),
            "round {round}: {issued:?}"
        );
        let code = bench.mailed(who, &issued[0]).code;
        let verdict = bench.verify(&*stores[0], who, &code).await;
        assert_eq!(verdict, Verdict::Correct, "round {round}");
    }
}
