//! The store's contract: what simultaneous calls spend of one mailbox. Every caller has its own
//! task, and the callers share ten connections; a barrier lets all of them go at once.

use std::time::Duration;

use otpost::otp::policy::{AddressLimits, Policy};
use otpost::store::{Admission, Cause, Verdict};
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench, LIMITED, LIMITS, other_than};
use super::store_callers::{CALLERS, at_once, stores};

/// Without a cooldown, so that only the hour limits.
const POLICY: Policy = Policy {
    limits: Some(AddressLimits {
        cooldown: Duration::ZERO,
        ..LIMITS
    }),
    ..LIMITED
};

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_simultaneous_requests_at_a_limit_of_five_give_exactly_five_mails(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(1, 7)] contexts: usize,
) {
    let bench = Bench::open_with(backend, POLICY).await;
    let stores = stores(&bench).await;
    for round in 0..20 {
        let address = format!("ann{round}@example.org");
        let requests = (0..CALLERS).map(|number| {
            let who = bench.who(&address, &format!("context {}", number % contexts));
            who.mail()
        });
        let answers = at_once(&stores, requests.collect(), |store, request| async move {
            store.admit(&request).await.unwrap().admission
        })
        .await;
        let granted = answers
            .iter()
            .filter(|answer| **answer == Admission::Granted);
        assert_eq!(granted.count(), 5, "round {round}: {answers:?}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_simultaneous_wrong_codes_over_several_contexts_compare_exactly_the_hours_limit(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_with(backend, POLICY).await;
    let stores = stores(&bench).await;
    for round in 0..20 {
        let address = format!("ann{round}@example.org");
        let mut contexts = Vec::new();
        for number in 0..CALLERS {
            let spelling = format!("ann{round}+{}@example.org", number % 3);
            let address = if number % 2 == 0 { &address } else { &spelling };
            let who = bench.who(address, &format!("context {}", number % 25));
            let mailed = bench
                .issue(&*stores[0], who, &format!("job {number}"))
                .await;
            contexts.push((who, other_than(&[&mailed.code])));
        }
        let requests = contexts
            .iter()
            .map(|(who, wrong)| bench.typed(*who, wrong))
            .collect();
        let checks = at_once(&stores, requests, |store, request| async move {
            store.verify(&request).await.unwrap()
        })
        .await;
        let count = |wanted| {
            checks
                .iter()
                .filter(|check| check.verdict == Verdict::Incorrect(wanted))
                .count()
        };
        assert_eq!(count(Cause::Wrong), 10, "round {round}: {checks:?}");
        assert_eq!(count(Cause::BudgetSpent), 40, "round {round}");
    }
}
