//! The store's contract: jobs that come late, rotation, and settings and keys that change while
//! codes live.

use std::time::Duration;

use otpost::otp::clock::UnixMillis;
use otpost::otp::keys::KeyRing;
use otpost::otp::policy::{Policy, Resend};
use otpost::store::{Cause, Issued, Verdict};
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench, LIFETIME, POLICY, keys};

const WRONG: Verdict = Verdict::Incorrect(Cause::Wrong);
const SECOND: Duration = Duration::from_secs(1);
const HALF: Duration = Duration::from_secs(300);
const ROTATE: Policy = Policy {
    resend: Resend::Rotate,
    ..POLICY
};

#[rstest]
#[case::requested_long_before(5_001, true)]
#[case::requested_just_before(5_000, false)]
#[tokio::test]
async fn a_job_from_before_a_success_mails_nothing(
    #[case] earlier_ms: u64,
    #[case] superseded: bool,
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job 1").await;
    bench.clock.advance(Duration::from_secs(30));
    assert_eq!(
        bench.verify(&*store, ann, &mailed.code).await,
        Verdict::Correct
    );
    let requested_at = bench.now().before(Duration::from_millis(earlier_ms));
    bench.clock.advance(SECOND);
    let late = store
        .issue(&bench.request_at(ann, "job 2", requested_at))
        .await
        .unwrap();
    assert_eq!(late == Issued::Superseded, superseded, "{late:?}");
}

#[rstest]
#[tokio::test]
async fn a_success_is_forgotten_after_one_lifetime(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job 1").await;
    bench.verify(&*store, ann, &mailed.code).await;
    let old = bench.now().before(Duration::from_secs(6));
    bench.clock.advance(Duration::from_secs(593));
    let request = bench.request_at(ann, "job 2", old);
    assert_eq!(store.issue(&request).await.unwrap(), Issued::Superseded);
    bench.clock.advance(Duration::from_secs(7));
    // The job itself is too old by now, which tells that the success is forgotten.
    assert_eq!(store.issue(&request).await.unwrap(), Issued::TooOld);
}

#[rstest]
#[tokio::test]
async fn a_job_older_than_a_lifetime_mails_nothing(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let request = bench.request(ann, "job");
    bench.clock.advance(LIFETIME);
    assert_eq!(store.issue(&request).await.unwrap(), Issued::TooOld);
    let younger = bench.request_at(ann, "job", UnixMillis(bench.now().before(LIFETIME).0 + 1));
    assert!(matches!(
        store.issue(&younger).await.unwrap(),
        Issued::Live { .. }
    ));
}

#[rstest]
#[tokio::test]
async fn a_job_from_the_future_counts_as_requested_now(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(1_000, u64::MAX / 2)] ahead_ms: u64,
) {
    let bench = Bench::open_with(backend, ROTATE).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let future = UnixMillis(bench.now().0 + ahead_ms);
    let first = store
        .issue(&bench.request_at(ann, "job 1", future))
        .await
        .unwrap();
    bench.clock.advance(Duration::from_millis(1));
    // A job that is newer than the newest code rotates it; it would not be newer than the future.
    let second = bench.issue(&*store, ann, "job 2").await;
    assert_ne!(bench.mailed(ann, &first).code, second.code);
}

#[rstest]
#[tokio::test]
async fn rotation_leaves_only_the_newest_code(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_with(backend, ROTATE).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let first = bench.issue(&*store, ann, "job 1").await;
    bench.clock.advance(SECOND);
    let second = bench.issue(&*store, ann, "job 2").await;
    assert_eq!(bench.verify(&*store, ann, &first.code).await, WRONG);
    assert_eq!(
        bench.verify(&*store, ann, &second.code).await,
        Verdict::Correct
    );
}

#[rstest]
#[tokio::test]
async fn a_job_older_than_the_newest_code_does_not_rotate_it(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, ROTATE).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let older = bench.request(ann, "job 1");
    bench.clock.advance(SECOND);
    let newest = bench.issue(&*store, ann, "job 2").await;
    let issued = store.issue(&older).await.unwrap();
    assert_eq!(bench.mailed(ann, &issued), newest);
}

#[rstest]
#[tokio::test]
async fn a_late_retry_rotates_its_own_dying_code(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_with(backend, ROTATE).await;
    let (store, ann) = (bench.store().await, bench.ann());
    bench.clock.advance(SECOND);
    let first = bench.request(ann, "job");
    bench.clock.advance(SECOND);
    let made = store.issue(&first).await.unwrap();
    bench.clock.advance(Duration::from_secs(540));
    let retry = store.issue(&first).await.unwrap();
    assert_eq!(
        bench.mailed(ann, &retry).code,
        bench.mailed(ann, &made).code
    );
    bench.clock.advance(Duration::from_millis(1));
    let late = bench.request_at(ann, "job", first.requested_at);
    let late = store.issue(&late).await.unwrap();
    assert_ne!(bench.mailed(ann, &late).code, bench.mailed(ann, &made).code);
}

#[rstest]
#[tokio::test]
async fn a_live_code_keeps_its_length_when_the_setting_changes(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let mut bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let six = bench.issue(&*store, ann, "job 1").await;
    bench.policy.digits = 8;
    let store = bench.store().await;
    assert_eq!(bench.issue(&*store, ann, "job 2").await.code, six.code);
    bench.clock.advance(HALF + SECOND);
    let eight = bench.issue(&*store, ann, "job 3").await;
    assert_eq!((six.code.len(), eight.code.len()), (6, 8));
    assert_eq!(
        bench.verify(&*store, ann, &six.code).await,
        Verdict::Correct
    );
}

#[rstest]
#[tokio::test]
async fn a_code_of_a_listed_former_key_is_right(#[values(Sqlite, Redis)] backend: Backend) {
    let mut bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job 1").await;
    bench.keys = KeyRing::new(&[2; 32], &[[1; 32]], &[9; 32]);
    let again = bench.issue(&*store, ann, "job 2").await;
    assert_eq!(again.code, mailed.code);
    assert_eq!(
        bench.verify(&*store, ann, &mailed.code).await,
        Verdict::Correct
    );
}

#[rstest]
#[tokio::test]
async fn a_code_of_an_unlisted_key_is_wrong(#[values(Sqlite, Redis)] backend: Backend) {
    let mut bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job").await;
    let mut forged = bench.typed(ann, &mailed.code);
    bench.keys = keys(2);
    assert_eq!(bench.verify(&*store, ann, &mailed.code).await, WRONG);
    // The right tag under another key's id does not help either.
    forged.tags[0].0 = bench.keys.current().id();
    assert_eq!(store.verify(&forged).await.unwrap().verdict, WRONG);
    forged.tags.clear();
    assert_eq!(store.verify(&forged).await.unwrap().verdict, WRONG);
}
