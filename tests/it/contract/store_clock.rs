//! The store's contract: a clock that is set back. What was counted under the later time counts until
//! that time is over once more, so that nobody gains by it.

use std::time::Duration;

use otpost::otp::policy::{AddressLimits, Policy};
use otpost::store::{Admission, Cause, ClientBuckets, OtpStore, Verdict};
use rstest::rstest;

use super::store_bench::Backend::{Cluster, Redis, Sqlite};
use super::store_bench::{
    ALL_LIMITED, Backend, Bench, CLIENT_LIMITS, LIMITED, LIMITS, admit, other_than,
};
use super::store_client::{ask, types};

const HOUR: Duration = Duration::from_secs(3_600);

/// Limits of an hour alone.
const HOURLY: Policy = Policy {
    limits: Some(AddressLimits {
        cooldown: Duration::ZERO,
        ..LIMITS
    }),
    ..LIMITED
};

#[rstest]
#[tokio::test]
async fn a_clock_that_is_set_back_gives_no_mailbox_more_mails(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(1, 24)] hours: u32,
) {
    let bench = Bench::open_with(backend, HOURLY).await;
    let (store, ann) = (bench.store().await, bench.ann());
    for _ in 0..LIMITS.per_hour {
        assert_eq!(admit(&*store, &ann.mail()).await, Admission::Granted);
    }
    bench.clock.set_back(hours * HOUR);
    for _ in 0..=hours {
        let refused = admit(&*store, &ann.mail()).await;
        assert!(matches!(refused, Admission::Refused { .. }), "{refused:?}");
        bench.clock.advance(HOUR);
    }
    assert_eq!(admit(&*store, &ann.mail()).await, Admission::Granted);
}

/// What a wrong clock was shown counts in the windows of mails; a pause of seconds does not become one of
/// hours.
#[rstest]
#[tokio::test]
async fn a_clock_that_jumped_ahead_makes_no_cooldown_longer(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    bench.clock.advance(HOUR);
    assert_eq!(admit(&*store, &ann.mail()).await, Admission::Granted);
    bench.clock.set_back(HOUR);
    assert_eq!(admit(&*store, &ann.mail()).await, Admission::Granted);
    let refused = admit(&*store, &ann.mail()).await;
    let retry_after = LIMITS.cooldown;
    assert_eq!(refused, Admission::Refused { retry_after });
    for _ in 2..LIMITS.per_hour {
        bench.clock.advance(LIMITS.cooldown);
        assert_eq!(admit(&*store, &ann.mail()).await, Admission::Granted);
    }
    bench.clock.advance(LIMITS.cooldown);
    let refused = admit(&*store, &ann.mail()).await;
    assert!(matches!(refused, Admission::Refused { .. }), "{refused:?}");
}

#[rstest]
#[tokio::test]
async fn a_clock_that_is_set_back_has_no_more_guesses_compared(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(1, 24)] hours: u32,
) {
    let bench = Bench::open_with(backend, HOURLY).await;
    let store = bench.store().await;
    let guess = async |context: &str| {
        let who = bench.who("ann@example.org", context);
        let mailed = bench.issue(&*store, who, "job").await;
        let wrong = other_than(&[&mailed.code]);
        let verdict = bench.verify(&*store, who, &wrong).await;
        assert_eq!(verdict, Verdict::Incorrect(Cause::Wrong));
        mailed.code.len()
    };
    for number in 0..LIMITS.failures_per_hour {
        assert_eq!(guess(&format!("{number}")).await, 6);
    }
    bench.clock.set_back(hours * HOUR);
    for hour in 0..=hours.min(11) {
        assert_eq!(guess(&format!("back {hour}")).await, 8, "hour {hour}");
        bench.clock.advance(HOUR);
    }
}

async fn remaining(store: &dyn OtpStore, bench: &Bench, client: ClientBuckets) -> (u32, u32) {
    let who = bench.who("bob@example.org", "");
    let admitted = ask(store, client, who).await;
    let refused = matches!(admitted.admission, Admission::ClientRefused { .. });
    assert!(refused, "{:?}", admitted.admission);
    let check = types(bench, store, client, who, "000000").await;
    let refused = matches!(check.verdict, Verdict::Refused { .. });
    assert!(refused, "{:?}", check.verdict);
    let [_, _, addresses] = admitted.client.unwrap();
    (addresses.remaining, check.client.unwrap().remaining)
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_gives_no_client_more_of_anything(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_with(backend, ALL_LIMITED).await;
    let (store, client) = (bench.store().await, bench.client("2001:db8::1"));
    for number in 0..CLIENT_LIMITS.verify_failures_per_hour {
        let who = bench.who(&format!("{number}@example.org"), "");
        ask(&*store, client, who).await;
        types(&bench, &*store, client, who, "000000").await;
    }
    bench.clock.set_back(3 * HOUR);
    for _ in 0..=3 {
        assert_eq!(remaining(&*store, &bench, client).await, (0, 0));
        bench.clock.advance(HOUR);
    }
    let who = bench.who("bob@example.org", "");
    let admitted = ask(&*store, client, who).await;
    assert_eq!(admitted.admission, Admission::Granted);
}
