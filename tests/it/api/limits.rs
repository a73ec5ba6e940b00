//! What the HTTP side makes of limits: whoever is refused learns how long to wait and nothing else.

use std::time::Duration;

use otpost::store::{Admission, Cause, Verdict};
use rstest::rstest;

use super::{Bench, incorrect};
use crate::support::fakes::{FakeQueue, FakeStore, Mood};

const GENERATE: &str = r#"{"email":"ada@example.org"}"#;
const VERIFY: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;

fn refusing(wait: Duration) -> Bench {
    let mut store = FakeStore::new(incorrect());
    store.admission = Admission::Refused { retry_after: wait };
    Bench::with(store, FakeQueue::new())
}

#[rstest]
#[case(Duration::from_millis(1), "10")]
#[case(Duration::from_secs(10), "10")]
#[case(Duration::from_millis(20_001), "30")]
#[case(Duration::from_secs(3_599), "3600")]
#[tokio::test]
async fn an_address_that_had_its_mails_is_refused_with_a_coarse_wait(
    #[case] wait: Duration,
    #[case] seconds: &str,
) {
    let bench = refusing(wait);
    let answer = bench.post("/otp/generate", GENERATE).await;
    answer.problem(429, "too_many_requests");
    assert_eq!(answer.header("retry-after"), seconds);
    let tells_counters = |name: &str| name.starts_with("ratelimit") || name.contains("x-rate");
    assert!(
        !answer
            .headers
            .keys()
            .any(|name| tells_counters(name.as_str()))
    );
    assert!(bench.queue.jobs.lock().unwrap().is_empty());
    let metrics = bench.telemetry.encode();
    assert!(metrics.contains("otpost_limit_refusals_total{limit=\"address\"} 1"));
}

#[tokio::test]
async fn an_address_is_charged_once_for_a_mail() {
    let bench = Bench::with(FakeStore::new(incorrect()), FakeQueue::new());
    let answer = bench.post("/otp/generate", GENERATE).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(bench.store.admitted.lock().unwrap().len(), 1);
    assert!(bench.store.given_back.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_mail_that_the_full_queue_did_not_take_is_given_back() {
    let mut queue = FakeQueue::new();
    queue.is_full = true;
    let bench = Bench::with(FakeStore::new(incorrect()), queue);
    let answer = bench.post("/otp/generate", GENERATE).await;
    answer.problem(503, "backlog_full");
    let admitted = bench.store.admitted.lock().unwrap().clone();
    assert_eq!(*bench.store.given_back.lock().unwrap(), admitted);
}

#[tokio::test]
async fn a_mail_that_the_queue_may_have_taken_stays_counted() {
    let mut queue = FakeQueue::new();
    queue.mood = Mood::Down;
    let bench = Bench::with(FakeStore::new(incorrect()), queue);
    let answer = bench.post("/otp/generate", GENERATE).await;
    answer.problem(503, "service_unavailable");
    assert_eq!(bench.store.admitted.lock().unwrap().len(), 1);
    assert!(bench.store.given_back.lock().unwrap().is_empty());
}

#[tokio::test]
async fn no_mail_is_taken_while_nobody_can_count_it() {
    let mut store = FakeStore::new(incorrect());
    store.mood = Mood::Down;
    let bench = Bench::with(store, FakeQueue::new());
    let answer = bench.post("/otp/generate", GENERATE).await;
    answer.problem(503, "service_unavailable");
    assert!(bench.queue.jobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_spent_budget_looks_like_a_wrong_code() {
    let answer_to = async |verdict| {
        let bench = Bench::with(FakeStore::new(verdict), FakeQueue::new());
        let answer = bench.post("/otp/verify", VERIFY).await;
        answer.problem(422, "otp_incorrect");
        answer.without_instance()
    };
    let wrong = answer_to(Verdict::Incorrect(Cause::Wrong)).await;
    let spent = answer_to(Verdict::Incorrect(Cause::BudgetSpent)).await;
    assert_eq!(spent, wrong);
}

#[tokio::test]
async fn the_guess_mass_grows_by_the_codes_that_a_guess_was_compared_with() {
    let wrong = Verdict::Incorrect(Cause::Wrong);
    let bench = Bench::with(FakeStore::new(wrong), FakeQueue::new());
    for _ in 0..3 {
        bench.post("/otp/verify", VERIFY).await;
    }
    let metrics = bench.telemetry.encode();
    let mass: f64 = metrics
        .lines()
        .find_map(|line| line.strip_prefix("otpost_otp_guess_mass_total "))
        .and_then(|value| value.parse().ok())
        .unwrap();
    assert!((mass - 3.0 * 2e-6).abs() < 1e-15, "{mass}");
}
