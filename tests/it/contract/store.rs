//! The store's contract: which code a job may mail, and which code is right.

use std::time::Duration;

use otpost::otp::policy::{Policy, Resend};
use otpost::store::{Cause, Verdict};
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench, LIFETIME, POLICY, other_than};

const WRONG: Verdict = Verdict::Incorrect(Cause::Wrong);
const NO_LIVE_CODE: Verdict = Verdict::Incorrect(Cause::NoLiveCode);

const SECOND: Duration = Duration::from_secs(1);
const HALF: Duration = Duration::from_secs(300);

#[rstest]
#[tokio::test]
async fn a_mailed_code_is_right_once(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job").await;
    assert_eq!(mailed.now, bench.now());
    assert_eq!(mailed.expires_at, bench.now().after(LIFETIME));
    assert_eq!(
        bench.verify(&*store, ann, &mailed.code).await,
        Verdict::Correct
    );
    assert_eq!(bench.verify(&*store, ann, &mailed.code).await, NO_LIVE_CODE);
}

#[rstest]
#[tokio::test]
async fn no_code_is_right_before_one_was_issued(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    assert_eq!(
        bench.verify(&*store, bench.ann(), "123456").await,
        NO_LIVE_CODE
    );
}

#[rstest]
#[tokio::test]
async fn a_code_is_right_until_the_very_instant_of_its_expiry(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let bob = bench.who("bob@example.org", "");
    let for_ann = bench.issue(&*store, ann, "job 1").await;
    let for_bob = bench.issue(&*store, bob, "job 2").await;
    bench.clock.advance(Duration::from_millis(599_999));
    assert_eq!(
        bench.verify(&*store, ann, &for_ann.code).await,
        Verdict::Correct
    );
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(
        bench.verify(&*store, bob, &for_bob.code).await,
        NO_LIVE_CODE
    );
}

#[rstest]
#[tokio::test]
async fn the_fifth_wrong_attempt_kills_the_code(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job").await;
    let wrong = other_than(&[&mailed.code]);
    for _ in 0..5 {
        assert_eq!(bench.verify(&*store, ann, &wrong).await, WRONG);
    }
    assert_eq!(bench.verify(&*store, ann, &mailed.code).await, NO_LIVE_CODE);
}

#[rstest]
#[tokio::test]
async fn a_code_is_right_after_four_wrong_attempts(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job").await;
    let wrong = other_than(&[&mailed.code]);
    for _ in 0..4 {
        assert_eq!(bench.verify(&*store, ann, &wrong).await, WRONG);
    }
    assert_eq!(
        bench.verify(&*store, ann, &mailed.code).await,
        Verdict::Correct
    );
}

#[rstest]
#[tokio::test]
async fn a_code_after_spent_attempts_begins_anew(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let dead = bench.issue(&*store, ann, "job 1").await;
    let wrong = other_than(&[&dead.code]);
    for _ in 0..5 {
        bench.verify(&*store, ann, &wrong).await;
    }
    let fresh = bench.issue(&*store, ann, "job 2").await;
    assert_ne!(fresh.code, dead.code);
    let wrong = other_than(&[&dead.code, &fresh.code]);
    for _ in 0..4 {
        assert_eq!(bench.verify(&*store, ann, &wrong).await, WRONG);
    }
    assert_eq!(
        bench.verify(&*store, ann, &fresh.code).await,
        Verdict::Correct
    );
}

#[rstest]
#[tokio::test]
async fn the_same_code_is_mailed_until_half_of_its_life_is_over(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let first = bench.issue(&*store, ann, "job 1").await;
    bench.clock.advance(HALF);
    let again = bench.issue(&*store, ann, "job 2").await;
    assert_eq!(
        (&again.code, again.expires_at),
        (&first.code, first.expires_at)
    );
    bench.clock.advance(Duration::from_millis(1));
    let second = bench.issue(&*store, ann, "job 3").await;
    assert_ne!(second.code, first.code);
    assert_eq!(second.expires_at, bench.now().after(LIFETIME));
}

#[rstest]
#[case::the_first(0)]
#[case::the_second(1)]
#[tokio::test]
async fn both_live_codes_are_right_and_one_success_uses_both_up(
    #[case] typed: usize,
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let first = bench.issue(&*store, ann, "job 1").await;
    bench.clock.advance(HALF + SECOND);
    let second = bench.issue(&*store, ann, "job 2").await;
    let codes = [first.code, second.code];
    assert_eq!(
        bench.verify(&*store, ann, &codes[typed]).await,
        Verdict::Correct
    );
    for code in &codes {
        assert_eq!(bench.verify(&*store, ann, code).await, NO_LIVE_CODE);
    }
}

#[rstest]
#[tokio::test]
async fn the_first_code_keeps_its_own_expiry_beside_the_second(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let first = bench.issue(&*store, ann, "job 1").await;
    bench.clock.advance(HALF + SECOND);
    let second = bench.issue(&*store, ann, "job 2").await;
    bench.clock.advance(Duration::from_secs(299));
    assert_eq!(bench.now(), first.expires_at);
    assert_eq!(bench.verify(&*store, ann, &first.code).await, WRONG);
    assert_eq!(
        bench.verify(&*store, ann, &second.code).await,
        Verdict::Correct
    );
}

#[rstest]
#[tokio::test]
async fn a_third_code_is_not_made_while_two_are_alive(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    // A first code that lives longer than its sibling's half: lifetimes differ after a change of
    // the setting.
    let long = Policy {
        lifetime: LIFETIME,
        ..POLICY
    };
    let short = Policy {
        lifetime: Duration::from_secs(120),
        ..POLICY
    };
    let ann = bench.ann();
    let first = bench.issue(&*bench.store_with(long).await, ann, "1").await;
    bench.clock.advance(HALF + SECOND);
    let store = bench.store_with(short).await;
    let second = bench.issue(&*store, ann, "2").await;
    bench.clock.advance(Duration::from_secs(61));
    let third = bench.issue(&*store, ann, "3").await;
    assert_ne!(second.code, first.code);
    assert_eq!(third.code, first.code, "the one that lives longest");
}

#[rstest]
#[tokio::test]
async fn a_retry_gets_its_own_code_while_a_minute_of_it_is_left(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let requested_at = bench.now();
    let first = bench.issue(&*store, ann, "job 1").await;
    bench.clock.advance(HALF + SECOND);
    let second = bench.issue(&*store, ann, "job 2").await;
    bench.clock.advance(Duration::from_secs(4 * 60 - 1));
    let retry = bench.request_at(ann, "job 1", requested_at);
    let issued = store.issue(&retry).await.unwrap();
    assert_eq!(bench.mailed(ann, &issued).code, first.code);
    bench.clock.advance(Duration::from_millis(1));
    let issued = store.issue(&retry).await.unwrap();
    assert_eq!(bench.mailed(ann, &issued).code, second.code);
}

#[rstest]
#[tokio::test]
async fn wrong_attempts_survive_a_resend_and_count_over_both_codes(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(Resend::Keep, Resend::Rotate)] resend: Resend,
) {
    let bench = Bench::open_with(backend, Policy { resend, ..POLICY }).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let first = bench.issue(&*store, ann, "job 1").await;
    bench.clock.advance(HALF + SECOND);
    for _ in 0..2 {
        let wrong = other_than(&[&first.code]);
        assert_eq!(bench.verify(&*store, ann, &wrong).await, WRONG);
    }
    let second = bench.issue(&*store, ann, "job 2").await;
    let wrong = other_than(&[&first.code, &second.code]);
    for _ in 0..3 {
        assert_eq!(bench.verify(&*store, ann, &wrong).await, WRONG);
    }
    for code in [first.code, second.code] {
        assert_eq!(bench.verify(&*store, ann, &code).await, NO_LIVE_CODE);
    }
}

#[rstest]
#[tokio::test]
async fn contexts_and_addresses_share_neither_codes_nor_attempts(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    let people = [
        bench.who("ann@example.org", ""),
        bench.who("ann@example.org", "login"),
        bench.who("ann+shop@example.org", ""),
        bench.who("bob@example.org", ""),
    ];
    let mut codes = Vec::new();
    for who in people {
        codes.push(bench.issue(&*store, who, "job").await.code);
    }
    let all: Vec<&str> = codes.iter().map(String::as_str).collect();
    let wrong = other_than(&all);
    for _ in 0..5 {
        bench.verify(&*store, people[0], &wrong).await;
    }
    assert_eq!(
        bench.verify(&*store, people[0], &codes[0]).await,
        NO_LIVE_CODE
    );
    assert_eq!(bench.verify(&*store, people[1], &codes[2]).await, WRONG);
    for (who, code) in people.into_iter().zip(&codes).skip(1) {
        assert_eq!(bench.verify(&*store, who, code).await, Verdict::Correct);
    }
}

#[rstest]
#[tokio::test]
async fn a_clock_that_jumps_ahead_and_back_gives_no_code_a_longer_life(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, ann, bob) = (
        bench.store().await,
        bench.ann(),
        bench.who("bob@example.org", ""),
    );
    let day = Duration::from_secs(86_400);
    bench.clock.advance(day);
    let anns = bench.issue(&*store, ann, "ahead").await;
    let bobs = bench.issue(&*store, bob, "ahead too").await;
    let right = bench.verify(&*store, bob, &bobs.code).await;
    assert_eq!(right, Verdict::Correct);
    bench.clock.set_back(day);
    assert_eq!(bench.verify(&*store, ann, &anns.code).await, NO_LIVE_CODE);
    // Nobody waits for the day to come again, not even who was successful in it.
    for who in [ann, bob] {
        let mailed = bench.issue(&*store, who, "back").await;
        assert_eq!(mailed.expires_at, bench.now().after(LIFETIME));
        let right = bench.verify(&*store, who, &mailed.code).await;
        assert_eq!(right, Verdict::Correct);
    }
}
