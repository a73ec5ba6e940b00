//! The store's contract: a right code that is answered again under the same idempotency key.

use std::sync::Arc;
use std::time::Duration;

use otpost::otp::keys::KeyRing;
use otpost::otp::policy::Policy;
use otpost::otp::record::REPLAY_TIME;
use otpost::store::{Cause, IdempotencyId, OtpStore, Verdict, VerifyRequest};
use rstest::rstest;

use super::store_bench::Backend::{Cluster, Redis, Sqlite};
use super::store_bench::{
    ALL_LIMITED, Backend, Bench, CLIENT_LIMITS, LIMITED, POLICY, Who, other_than,
};
use super::store_callers::{CALLERS, at_once, stores};
use super::store_durability::Witness;

const NONE: Verdict = Verdict::Incorrect(Cause::NoLiveCode);
const WRONG: Verdict = Verdict::Incorrect(Cause::Wrong);

/// What the API would ask for this code under a key of this caller.
fn keyed(bench: &Bench, who: Who, code: &str, caller: &str) -> VerifyRequest {
    let key = "8e03978e-40d5-43e8-bc93-6894a57f9324";
    let idempotency = IdempotencyId::of(&bench.keys, caller.as_bytes(), who.limit, key);
    VerifyRequest {
        idempotency: Some(idempotency),
        ..bench.typed(who, code)
    }
}

async fn verify(bench: &Bench, store: &dyn OtpStore, who: Who, code: &str) -> Verdict {
    let request = keyed(bench, who, code, "caller");
    let check = store.verify(&request).await.unwrap();
    let is_free = check.evaluated.normal == 0 && check.evaluated.stepped == 0;
    assert!(is_free || check.verdict == WRONG);
    check.verdict
}

/// A bench on which Ann's code was right under her key.
struct Verified {
    bench: Bench,
    store: Arc<dyn OtpStore>,
    code: String,
}

impl Verified {
    async fn open(backend: Backend) -> Self {
        let bench = Bench::open(backend).await;
        let store = bench.store().await;
        let code = bench.issue(&*store, bench.ann(), "job").await.code;
        let verified = Self { bench, store, code };
        assert_eq!(verified.ask(&verified.code).await, Verdict::Correct);
        verified
    }

    /// Hands a code in under the same key.
    async fn ask(&self, code: &str) -> Verdict {
        verify(&self.bench, &*self.store, self.bench.ann(), code).await
    }
}

#[rstest]
#[tokio::test]
async fn only_the_same_key_and_code_get_the_same_success_again_and_only_for_a_minute(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(POLICY, LIMITED)] policy: Policy,
) {
    let bench = Bench::open_with(backend, policy).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let code = bench.issue(&*store, ann, "job").await.code;
    let other = other_than(&[&code]);
    let elsewhere = bench.who("ann@example.org", "other context");
    let ask = async |code: &str| verify(&bench, &*store, ann, code).await;

    assert_eq!(ask(&other).await, WRONG, "a failure is not kept");
    assert_eq!(ask(&code).await, Verdict::Correct);
    assert_eq!(ask(&code).await, Verdict::Repeated);
    assert_eq!(ask(&other).await, Verdict::KeyReused);
    assert_eq!(bench.verify(&*store, ann, &code).await, NONE, "without key");
    let stranger = keyed(&bench, ann, &code, "other caller");
    assert_eq!(store.verify(&stranger).await.unwrap().verdict, NONE);
    let wrong_context = verify(&bench, &*store, elsewhere, &code).await;
    assert_eq!(wrong_context, NONE);
    bench
        .clock
        .advance(REPLAY_TIME.saturating_sub(Duration::from_millis(1)));
    assert_eq!(ask(&code).await, Verdict::Repeated);
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(ask(&code).await, NONE);
    assert_eq!(ask(&other).await, NONE);
}

#[rstest]
#[tokio::test]
async fn a_repetition_takes_nothing_from_a_live_code(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let first = bench.issue(&*store, ann, "job 1").await.code;
    let ask = async |code: &str| verify(&bench, &*store, ann, code).await;
    assert_eq!(ask(&first).await, Verdict::Correct);
    let second = bench.issue(&*store, ann, "job 2").await.code;
    let wrong = other_than(&[&first, &second]);
    for _ in 0..4 {
        assert_eq!(bench.verify(&*store, ann, &wrong).await, WRONG);
    }
    // One attempt is left.
    for _ in 0..3 {
        assert_eq!(ask(&first).await, Verdict::Repeated);
        assert_eq!(ask(&wrong).await, Verdict::KeyReused);
    }
    assert_eq!(bench.verify(&*store, ann, &second).await, Verdict::Correct);
}

#[rstest]
#[tokio::test]
async fn guesses_under_a_key_that_had_its_success_are_as_many_as_against_a_live_code(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let verified = Verified::open(backend).await;
    let other = other_than(&[&verified.code]);
    for _ in 0..POLICY.attempts {
        assert_eq!(verified.ask(&other).await, Verdict::KeyReused);
    }
    assert_eq!(verified.ask(&other).await, NONE);
    assert_eq!(verified.ask(&verified.code).await, NONE);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_simultaneous_right_codes_under_one_key_are_one_success_and_its_repetitions(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let stores = stores(&bench).await;
    for round in 0..10 {
        let who = bench.who("ann@example.org", &format!("round {round}"));
        let code = bench.issue(&*stores[0], who, "job").await.code;
        let requests = vec![keyed(&bench, who, &code, "caller"); CALLERS];
        let verdicts = at_once(&stores, requests, |store, request| async move {
            store.verify(&request).await.unwrap().verdict
        })
        .await;
        let count = |wanted| verdicts.iter().filter(|found| **found == wanted).count();
        assert_eq!(count(Verdict::Correct), 1, "{verdicts:?}");
        assert_eq!(count(Verdict::Repeated), 49, "{verdicts:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a_repetition_is_no_failure_of_its_client_and_another_code_is_one(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_with(backend, ALL_LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let code = bench.issue(&*store, ann, "job").await.code;
    let other = other_than(&[&code]);
    let most = CLIENT_LIMITS.verify_failures_per_hour;
    for (code, verdict, remaining) in [
        (&code, Verdict::Correct, most),
        (&code, Verdict::Repeated, most),
        (&code, Verdict::Repeated, most),
        (&other, Verdict::KeyReused, most - 1),
        (&code, Verdict::Repeated, most - 1),
    ] {
        let request = VerifyRequest {
            client: Some(bench.client("192.0.2.1")),
            ..keyed(&bench, ann, code, "caller")
        };
        let check = store.verify(&request).await.unwrap();
        let left = check.client.unwrap().remaining;
        assert_eq!((check.verdict, left), (verdict, remaining));
    }
}

#[rstest]
#[tokio::test]
async fn a_success_is_repeated_though_the_master_key_was_rotated(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let mut verified = Verified::open(backend).await;
    verified.bench.keys = KeyRing::new(&[2; 32], &[[1; 32]], &[9; 32]);
    assert_eq!(verified.ask(&verified.code).await, Verdict::Repeated);
}

#[rstest]
#[tokio::test]
async fn a_success_is_repeated_by_a_server_that_was_started_again(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let Verified {
        mut bench,
        store,
        code,
    } = Verified::open(backend).await;
    drop(store);
    match backend {
        Sqlite => bench.reopen(),
        _ => bench.server_mut().restart().await,
    }
    let store = bench.store().await;
    let again = verify(&bench, &*store, bench.ann(), &code).await;
    assert_eq!(again, Verdict::Repeated);
}

#[rstest]
#[tokio::test]
async fn a_verify_that_is_repeated_makes_exactly_one_durable_write(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let code = bench.issue(&*store, ann, "job").await.code;
    let other = other_than(&[&code]);
    let mut witness = Witness::of(&bench, backend).await;
    for (code, expected) in [
        (&code, Verdict::Correct),
        (&code, Verdict::Repeated),
        (&other, Verdict::KeyReused),
        (&code, Verdict::Repeated),
    ] {
        let request = keyed(&bench, ann, code, "caller");
        let before = witness.look().await;
        assert_eq!(store.verify(&request).await.unwrap().verdict, expected);
        let after = witness.look().await;
        assert_eq!(after.0 - before.0, 1, "{expected:?}");
        assert_ne!(after.1, before.1, "{expected:?} did not reach the disk");
    }
}
