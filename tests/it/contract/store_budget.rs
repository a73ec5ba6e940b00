//! The store's contract: what one mailbox may spend, and what happens when it has.

use std::time::Duration;

use otpost::otp::clock::UnixMillis;
use otpost::otp::policy::{AddressLimits, Policy, Resend, StepUp};
use otpost::store::{
    Admission, Cause, Check, ClientBuckets, Evaluated, IssueRequest, Issued, OtpStore, Verdict,
    VerifyRequest,
};
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench, LIMITED, LIMITS, Who, admit, other_than};

const WRONG: Verdict = Verdict::Incorrect(Cause::Wrong);
const SPENT: Verdict = Verdict::Incorrect(Cause::BudgetSpent);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Ann in some context.
fn context(bench: &Bench, number: u32) -> Who {
    bench.who("ann@example.org", &format!("context {number}"))
}

/// Wrong codes for Ann, each in a context of its own with a fresh code, until one is not compared
/// any more; how many were.
async fn spend(bench: &Bench, store: &dyn OtpStore, contexts: std::ops::Range<u32>) -> u32 {
    let mut compared = 0;
    for number in contexts {
        let who = context(bench, number);
        let issued = store.issue(&bench.request(who, "job")).await.unwrap();
        if issued == Issued::Blocked {
            break;
        }
        let wrong = wrong_one(&bench.mailed(who, &issued).code);
        if bench.verify(store, who, &wrong).await != WRONG {
            break;
        }
        compared += 1;
    }
    compared
}

/// A wrong code of the same length.
fn wrong_one(code: &str) -> String {
    let last = if code.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &code[..code.len() - 1])
}

#[rstest]
#[case::an_hour(HOUR, 10)]
#[case::a_day(DAY, 15)]
#[case::a_month(30 * DAY, 35)]
#[tokio::test]
async fn wrong_codes_count_in_windows_that_slide(
    #[case] window: Duration,
    #[case] limit: u32,
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, start) = (bench.store().await, bench.now());
    let (gap, instant) = (window / limit, Duration::from_millis(1));
    for number in 0..limit {
        if number > 0 {
            bench.clock.advance(gap);
        }
        let next = number..number + 1;
        assert_eq!(spend(&bench, &*store, next).await, 1, "failure {number}");
    }
    let spread = bench.now().since(start);
    bench.clock.advance(window.saturating_sub(spread + instant));
    let early = context(&bench, 1_000);
    assert_eq!(bench.issue(&*store, early, "job").await.code.len(), 8);
    bench.clock.advance(instant);
    let due = context(&bench, 1_001);
    assert_eq!(bench.issue(&*store, due, "job").await.code.len(), 6);
}

#[rstest]
#[tokio::test]
async fn a_live_code_is_not_compared_while_a_window_is_full(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    spend(&bench, &*store, 0..9).await;
    let mailed = bench.issue(&*store, ann, "job").await;
    spend(&bench, &*store, 9..10).await;
    for _ in 0..20 {
        assert_eq!(bench.verify(&*store, ann, &mailed.code).await, SPENT);
        let wrong = wrong_one(&mailed.code);
        assert_eq!(bench.verify(&*store, ann, &wrong).await, SPENT);
    }
}

#[rstest]
#[tokio::test]
async fn an_owner_under_attack_signs_in_with_an_8_digit_code(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(Resend::Keep, Resend::Rotate)] resend: Resend,
) {
    let bench = Bench::open_with(backend, Policy { resend, ..LIMITED }).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let dead = bench.issue(&*store, ann, "job 1").await;
    assert_eq!(spend(&bench, &*store, 0..10).await, 10);
    let longer = bench.issue(&*store, ann, "job 2").await;
    assert_eq!(longer.code.len(), 8, "a live normal code must not come");
    let again = bench.issue(&*store, ann, "job 1").await;
    assert_eq!(again.code, longer.code, "nor for a retry");
    assert_eq!(bench.verify(&*store, ann, &dead.code).await, WRONG);
    let right = bench.verify(&*store, ann, &longer.code).await;
    assert_eq!(right, Verdict::Correct);
}

#[rstest]
#[tokio::test]
async fn stepped_up_codes_have_a_budget_of_their_own(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let store = bench.store().await;
    assert_eq!(spend(&bench, &*store, 0..100).await, 10 + 12);
    // The hour is over, and five of the day are left.
    bench.clock.advance(HOUR);
    assert_eq!(spend(&bench, &*store, 100..200).await, 5);
    bench.clock.advance(23 * HOUR);
    assert_eq!(spend(&bench, &*store, 200..300).await, 10 + 12);
}

#[rstest]
#[tokio::test]
async fn no_code_is_mailed_while_none_would_be_compared(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(Resend::Keep, Resend::Rotate)] resend: Resend,
) {
    let bench = Bench::open_with(backend, Policy { resend, ..LIMITED }).await;
    let (store, ann) = (bench.store().await, bench.ann());
    assert_eq!(spend(&bench, &*store, 0..21).await, 21);
    let longer = bench.issue(&*store, ann, "job 1").await;
    assert_eq!(spend(&bench, &*store, 21..100).await, 1);
    for (who, job) in [(ann, "job 1"), (ann, "job 2"), (context(&bench, 99), "job")] {
        let request = bench.request(who, job);
        assert_eq!(store.issue(&request).await.unwrap(), Issued::Blocked);
    }
    assert_eq!(bench.verify(&*store, ann, &longer.code).await, SPENT);
    bench.clock.advance(HOUR);
    let normal = bench.issue(&*store, ann, "job 3").await;
    assert_eq!(normal.code.len(), 6);
    let right = bench.verify(&*store, ann, &normal.code).await;
    assert_eq!(right, Verdict::Correct);
}

/// A breaker is open, and the mailbox has spent the failures of the longer codes that it asks for.
#[rstest]
#[tokio::test]
async fn who_may_have_no_longer_code_gets_the_one_that_is_good_again_but_no_new_normal_one(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(Resend::Keep, Resend::Rotate)] resend: Resend,
) {
    let bench = Bench::open_with(backend, Policy { resend, ..LIMITED }).await;
    let (store, ann) = (bench.store().await, bench.ann());
    assert_eq!(spend(&bench, &*store, 0..100).await, 10 + 12);
    bench.clock.advance(HOUR);
    let issue = async |who, job: &str, must_step_up| {
        let request = IssueRequest {
            must_step_up,
            ..bench.request(who, job)
        };
        store.issue(&request).await.unwrap()
    };
    let fresh = issue(context(&bench, 99), "job", true).await;
    assert_eq!(fresh, Issued::Blocked);
    let mailed = bench.mailed(ann, &issue(ann, "job 1", false).await);
    let again = bench.mailed(ann, &issue(ann, "job 1", true).await);
    assert_eq!(again.code, mailed.code, "its own job may mail it again");
    bench.clock.advance(Duration::from_secs(301));
    assert_eq!(issue(ann, "job 2", true).await, Issued::Blocked);
    let right = bench.verify(&*store, ann, &mailed.code).await;
    assert_eq!(right, Verdict::Correct, "asking does not end it");
}

#[rstest]
#[tokio::test]
async fn an_eight_digit_code_is_normal_where_eight_digits_are_configured(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let policy = Policy {
        digits: 8,
        ..LIMITED
    };
    let bench = Bench::open_with(backend, policy).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let normal = bench.issue(&*store, ann, "job 1").await;
    assert_eq!(spend(&bench, &*store, 0..10).await, 10);
    assert_eq!(bench.verify(&*store, ann, &normal.code).await, SPENT);
    let stepped = bench.issue(&*store, ann, "job 2").await;
    assert_ne!(stepped.code, normal.code);
    let right = bench.verify(&*store, ann, &stepped.code).await;
    assert_eq!(right, Verdict::Correct);
}

#[rstest]
#[tokio::test]
async fn blocking_gives_no_code_until_the_budget_recovers(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let policy = Policy {
        step_up: StepUp::Block,
        ..LIMITED
    };
    let bench = Bench::open_with(backend, policy).await;
    let (store, ann) = (bench.store().await, bench.ann());
    spend(&bench, &*store, 0..10).await;
    let request = bench.request(ann, "job");
    assert_eq!(store.issue(&request).await.unwrap(), Issued::Blocked);
    bench.clock.advance(HOUR);
    let mailed = bench.issue(&*store, ann, "job 2").await;
    assert_eq!(mailed.code.len(), 6);
    let right = bench.verify(&*store, ann, &mailed.code).await;
    assert_eq!(right, Verdict::Correct);
}

#[rstest]
#[tokio::test]
async fn neither_success_nor_resend_nor_a_new_code_clears_a_failure(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let store = bench.store().await;
    for number in 0..10 {
        let who = context(&bench, number);
        let mailed = bench.issue(&*store, who, "job").await;
        let wrong = wrong_one(&mailed.code);
        assert_eq!(bench.verify(&*store, who, &wrong).await, WRONG);
        bench.issue(&*store, who, "job again").await;
        let right = bench.verify(&*store, who, &mailed.code).await;
        assert_eq!(right == Verdict::Correct, number < 9, "{number}");
    }
    assert_eq!(spend(&bench, &*store, 10..11).await, 1, "a stepped-up one");
    let longer = bench.issue(&*store, context(&bench, 12), "job").await;
    assert_eq!(longer.code.len(), 8);
}

#[rstest]
#[tokio::test]
async fn a_code_against_nothing_is_no_failure(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    for number in 0..50 {
        let verdict = bench
            .verify(&*store, context(&bench, number), "123456")
            .await;
        assert_eq!(verdict, Verdict::Incorrect(Cause::NoLiveCode));
    }
    assert_eq!(bench.issue(&*store, ann, "job").await.code.len(), 6);
}

fn typed_by(bench: &Bench, who: Who, code: &str, client: ClientBuckets) -> VerifyRequest {
    VerifyRequest {
        client: Some(client),
        ..bench.typed(who, code)
    }
}

#[rstest]
#[tokio::test]
async fn one_client_spends_at_most_five_failures_of_an_address_a_day(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let store = bench.store().await;
    let (stranger, owner) = (bench.client("192.0.2.1"), bench.client("192.0.2.2"));
    let mut verdicts = Vec::new();
    for number in 0..20 {
        let who = context(&bench, number);
        let mailed = bench.issue(&*store, who, "job").await;
        let request = typed_by(&bench, who, &wrong_one(&mailed.code), stranger);
        verdicts.push(store.verify(&request).await.unwrap().verdict);
    }
    assert_eq!(verdicts[..5], [WRONG; 5]);
    assert_eq!(verdicts[5..], [SPENT; 15]);
    let ann = bench.ann();
    let mailed = bench.issue(&*store, ann, "job").await;
    assert_eq!(mailed.code.len(), 6);
    let by_stranger = typed_by(&bench, ann, &mailed.code, stranger);
    assert_eq!(store.verify(&by_stranger).await.unwrap().verdict, SPENT);
    let by_owner = typed_by(&bench, ann, &mailed.code, owner);
    let right = store.verify(&by_owner).await.unwrap().verdict;
    assert_eq!(right, Verdict::Correct);
    bench.clock.advance(DAY);
    let mailed = bench.issue(&*store, ann, "job 2").await;
    let by_stranger = typed_by(&bench, ann, &mailed.code, stranger);
    let right = store.verify(&by_stranger).await.unwrap().verdict;
    assert_eq!(right, Verdict::Correct);
}

#[rstest]
#[tokio::test]
async fn a_wrong_code_tells_with_how_many_live_ones_it_was_compared(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let compared = |normal, stepped| Check {
        verdict: WRONG,
        evaluated: Evaluated { normal, stepped },
        resolved: 0,
        client: None,
    };
    let first = bench.issue(&*store, ann, "job 1").await.code;
    let typed = bench.typed(ann, &other_than(&[&first]));
    assert_eq!(store.verify(&typed).await.unwrap(), compared(1, 0));
    bench.clock.advance(Duration::from_secs(301));
    let second = bench.issue(&*store, ann, "job 2").await.code;
    let typed = bench.typed(ann, &other_than(&[&first, &second]));
    assert_eq!(store.verify(&typed).await.unwrap(), compared(2, 0));
    assert_eq!(spend(&bench, &*store, 0..8).await, 8);
    let third = bench.issue(&*store, ann, "job 3").await.code;
    let typed = bench.typed(ann, &wrong_one(&third));
    assert_eq!(store.verify(&typed).await.unwrap(), compared(0, 1));
}

#[rstest]
#[tokio::test]
async fn nothing_is_limited_when_limits_are_off(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    for _ in 0..20 {
        assert_eq!(admit(&*store, &ann.mail()).await, Admission::Granted);
    }
    assert_eq!(spend(&bench, &*store, 0..60).await, 60);
    // What was not counted is not held against the address later.
    let limited = bench.store_with(LIMITED).await;
    assert_eq!(admit(&*limited, &ann.mail()).await, Admission::Granted);
    assert_eq!(bench.issue(&*limited, ann, "job").await.code.len(), 6);
}

#[rstest]
#[tokio::test]
async fn a_budget_goes_when_its_last_window_is_over(#[values(Sqlite, Redis)] backend: Backend) {
    let short = AddressLimits {
        cooldown: Duration::ZERO,
        ..LIMITS
    };
    let policy = Policy {
        limits: Some(short),
        ..LIMITED
    };
    let bench = Bench::open_with(backend, policy).await;
    let (store, ann) = (bench.store().await, bench.ann());
    admit(&*store, &ann.mail()).await;
    let after_mail = time_left(&bench, ann).await;
    assert_eq!(after_mail, DAY);
    spend(&bench, &*store, 0..1).await;
    assert_eq!(time_left(&bench, ann).await, 30 * DAY);
    bench.clock.advance(29 * DAY);
    spend(&bench, &*store, 1..2).await;
    bench.clock.advance(30 * DAY);
    if backend == Sqlite {
        // Another address's row takes the ended ones along.
        admit(&*store, &bench.who("bob@example.org", "").mail()).await;
        let count = |db: &rusqlite::Connection| {
            db.query_row("SELECT count(*) FROM mailbox", [], |row| {
                row.get::<_, i64>(0)
            })
        };
        assert_eq!(bench.database().0.run(count).await.unwrap(), 1);
    }
}

/// Until when the data of a mailbox is kept, counted from now.
async fn time_left(bench: &Bench, who: Who) -> Duration {
    if bench.is_redis() {
        let key = format!("otpost:{{{}}}:a", who.limit);
        let left: u64 = redis::cmd("PTTL")
            .arg(key)
            .query_async(&mut bench.server().connect().await)
            .await
            .unwrap();
        // The server's clock runs, the store's does not.
        return Duration::from_secs(left.div_ceil(60_000) * 60);
    }
    let limit = who.limit.0;
    let ends = move |db: &rusqlite::Connection| {
        let query = "SELECT ends_at FROM mailbox WHERE name = ?";
        db.query_row(query, [limit], |row| row.get::<_, i64>(0))
    };
    let ends_at = bench.database().0.run(ends).await.unwrap();
    UnixMillis(u64::try_from(ends_at).unwrap()).since(bench.now())
}
