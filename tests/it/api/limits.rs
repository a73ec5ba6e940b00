//! What the HTTP side makes of limits: whoever is refused learns how long to wait and nothing else.

use std::collections::HashSet;
use std::time::Duration;

use otpost::otp::client_budget::{ClientLimit, GENERATE_LIMITS};
use otpost::store::{Admission, Cause, ClientBuckets, GenerateQuotas, Paced, Quota, Verdict};
use rstest::rstest;

use super::{Bench, GLOBAL, incorrect, keys};
use crate::support::fakes::{FakeQueue, FakeStore, Mood};

const GENERATE: &str = r#"{"email":"ada@example.org"}"#;
const VERIFY: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;

fn quota(limit: ClientLimit, remaining: u32, more_in: Duration) -> Quota {
    Quota {
        limit,
        most: 10,
        remaining,
        more_in,
    }
}

fn generate_quotas(remaining: u32) -> GenerateQuotas {
    GENERATE_LIMITS.map(|limit| quota(limit, remaining, Duration::from_secs(90)))
}

fn failure_quota(remaining: u32) -> Quota {
    let limit = ClientLimit::FailuresInAnHour;
    quota(limit, remaining, Duration::from_secs(90))
}

fn refusing(wait: Duration) -> Bench {
    let mut store = FakeStore::new(incorrect());
    store.admission = Admission::Refused { retry_after: wait };
    // The client's own standing goes with the client's own refusals.
    store.generate_quotas = Some(generate_quotas(3));
    Bench::with(store, FakeQueue::new())
}

#[rstest]
#[case(Duration::from_millis(1), 10)]
#[case(Duration::from_secs(10), 10)]
#[case(Duration::from_millis(20_001), 30)]
#[case(Duration::from_secs(3_599), 3_600)]
#[tokio::test]
async fn an_address_that_had_its_mails_is_refused_with_a_coarse_wait(
    #[case] wait: Duration,
    #[case] seconds: u32,
) {
    let bench = refusing(wait);
    let answer = bench.post("/otp/generate", GENERATE).await;
    answer.problem(429, "too_many_requests");
    let found: u32 = answer.header("retry-after").parse().unwrap();
    assert!(
        (seconds..=seconds + seconds / 10 + 1).contains(&found),
        "{found}"
    );
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

#[tokio::test]
async fn beyond_the_global_budget_a_request_is_refused_and_charges_nobody() {
    let mut store = FakeStore::new(incorrect());
    store.paced = Paced::Wait(Duration::from_millis(12_001));
    let bench = Bench::bounded(store, FakeQueue::new());
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let answer = bench.post("/otp/generate", GENERATE).await;
        answer.problem(503, "global_budget_spent");
        waits.insert(answer.header("retry-after").parse::<u32>().unwrap());
    }
    // The wait and up to a minute more, and then up to a tenth of that.
    assert!(
        waits.iter().all(|wait| (13..=81).contains(wait)),
        "{waits:?}"
    );
    assert!(waits.len() > 10, "all at once: {waits:?}");
    let admitted = bench.store.admitted.lock().unwrap().clone();
    assert_eq!(*bench.store.given_back.lock().unwrap(), admitted);
    assert!(bench.queue.jobs.lock().unwrap().is_empty());
    let metrics = bench.telemetry.encode();
    assert!(metrics.contains("otpost_limit_refusals_total{limit=\"global\"} 50"));
}

#[tokio::test]
async fn a_mail_takes_one_place_in_the_global_budget() {
    let bench = Bench::bounded(FakeStore::new(incorrect()), FakeQueue::new());
    let answer = bench.post("/otp/generate", GENERATE).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let pacing = bench.store.pacing.lock().unwrap();
    assert_eq!(pacing.len(), 1);
    assert_eq!(pacing[0].0, GLOBAL.name);
}

#[tokio::test]
async fn without_a_global_budget_no_place_is_taken() {
    let bench = Bench::with(FakeStore::new(incorrect()), FakeQueue::new());
    bench.post("/otp/generate", GENERATE).await;
    assert!(bench.store.pacing.lock().unwrap().is_empty());
}

#[rstest]
#[case::refused_by_the_address(Admission::Refused { retry_after: Duration::from_secs(9) }, false)]
#[case::not_taken_by_the_queue(Admission::Granted, true)]
#[tokio::test]
async fn a_request_of_which_no_mail_comes_takes_nothing_of_the_global_budget(
    #[case] admission: Admission,
    #[case] is_full: bool,
) {
    let mut store = FakeStore::new(incorrect());
    store.admission = admission;
    let mut queue = FakeQueue::new();
    queue.is_full = is_full;
    let bench = Bench::bounded(store, queue);
    for _ in 0..20 {
        let answer = bench.post("/otp/generate", GENERATE).await;
        assert!(answer.status.as_u16() >= 429, "{}", answer.text());
    }
    assert!(bench.store.pacing.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_mail_that_the_queue_may_have_taken_keeps_its_place_in_the_global_budget() {
    let mut queue = FakeQueue::new();
    queue.mood = Mood::Down;
    let bench = Bench::bounded(FakeStore::new(incorrect()), queue);
    bench.post("/otp/generate", GENERATE).await;
    assert_eq!(bench.store.pacing.lock().unwrap().len(), 1);
}

#[rstest]
#[case::wrong(Verdict::Incorrect(Cause::Wrong), 5)]
#[case::no_live_code(Verdict::Incorrect(Cause::NoLiveCode), 0)]
#[case::budget_spent(Verdict::Incorrect(Cause::BudgetSpent), 0)]
#[case::a_success_after_three_wrong_ones(Verdict::Correct, -15)]
#[tokio::test]
async fn wrong_codes_count_for_the_breaker_and_those_before_a_success_do_not(
    #[case] verdict: Verdict,
    #[case] untold: i64,
) {
    let bench = Bench::with(FakeStore::new(verdict), FakeQueue::new());
    for _ in 0..5 {
        bench.post("/otp/verify", VERIFY).await;
    }
    assert_eq!(bench.breaker.take(), untold);
}

#[tokio::test]
async fn a_client_is_told_how_it_stands_with_asking() {
    let mut store = FakeStore::new(incorrect());
    store.generate_quotas = Some(generate_quotas(7));
    let bench = Bench::with(store, FakeQueue::new());
    let answer = bench.post("/otp/generate", GENERATE).await;
    assert_eq!(answer.status, 202);
    assert_eq!(
        answer.header("ratelimit-policy"),
        r#""generate-10m";q=10;w=600, "generate-1h";q=10;w=3600, "addresses-1h";q=10;w=3600"#
    );
    assert_eq!(
        answer.header("ratelimit"),
        r#""generate-10m";r=7;t=90, "generate-1h";r=7;t=90, "addresses-1h";r=7;t=90"#
    );
}

#[tokio::test]
async fn a_client_that_had_its_share_is_refused_with_its_own_numbers() {
    let mut store = FakeStore::new(incorrect());
    let retry_after = Duration::from_secs(90);
    store.admission = Admission::ClientRefused { retry_after };
    store.generate_quotas = Some(generate_quotas(0));
    let bench = Bench::with(store, FakeQueue::new());
    let mut waits = HashSet::new();
    for _ in 0..64 {
        let answer = bench.post("/otp/generate", GENERATE).await;
        answer.problem(429, "client_limit_reached");
        assert!(
            answer
                .header("ratelimit")
                .starts_with(r#""generate-10m";r=0;t=90"#)
        );
        waits.insert(answer.header("retry-after").parse::<u32>().unwrap());
    }
    assert!(
        waits.iter().all(|wait| (90..=100).contains(wait)),
        "{waits:?}"
    );
    assert!(waits.len() > 1, "not all of them come back at once");
    assert!(bench.queue.jobs.lock().unwrap().is_empty());
    let metrics = bench.telemetry.encode();
    assert!(metrics.contains("otpost_limit_refusals_total{limit=\"client\"} 64"));
}

#[tokio::test]
async fn a_client_that_had_its_failures_is_refused_and_no_verify_is_counted() {
    let retry_after = Duration::from_secs(90);
    let mut store = FakeStore::new(Verdict::Refused { retry_after });
    store.failure_quota = Some(failure_quota(0));
    let bench = Bench::with(store, FakeQueue::new());
    let answer = bench.post("/otp/verify", VERIFY).await;
    answer.problem(429, "client_limit_reached");
    assert_eq!(
        answer.header("ratelimit-policy"),
        r#""verify-failures-1h";q=10;w=3600"#
    );
    assert_eq!(
        answer.header("ratelimit"),
        r#""verify-failures-1h";r=0;t=90"#
    );
    let metrics = bench.telemetry.encode();
    assert!(metrics.contains("otpost_limit_refusals_total{limit=\"client\"} 1"));
    assert!(!metrics.contains("otpost_otp_verifies_total{"));
}

#[rstest]
#[case(Verdict::Correct, 200)]
#[case(Verdict::Incorrect(Cause::Wrong), 422)]
#[case(Verdict::Incorrect(Cause::NoLiveCode), 422)]
#[case(Verdict::Incorrect(Cause::BudgetSpent), 422)]
#[tokio::test]
async fn a_client_is_told_how_it_stands_with_failures(
    #[case] verdict: Verdict,
    #[case] status: u16,
) {
    let mut store = FakeStore::new(verdict);
    store.failure_quota = Some(failure_quota(6));
    let bench = Bench::with(store, FakeQueue::new());
    let answer = bench.post("/otp/verify", VERIFY).await;
    assert_eq!(answer.status, status);
    assert_eq!(
        answer.header("ratelimit-policy"),
        r#""verify-failures-1h";q=10;w=3600"#
    );
    assert_eq!(
        answer.header("ratelimit"),
        r#""verify-failures-1h";r=6;t=90"#
    );
}

#[tokio::test]
async fn nobody_is_told_limits_that_do_not_count() {
    let bench = Bench::build(FakeStore::new(incorrect()), FakeQueue::new(), |api| {
        api.policy.client_limits = None;
    });
    for (path, body) in [("/otp/generate", GENERATE), ("/otp/verify", VERIFY)] {
        let answer = bench.post(path, body).await;
        assert!(!answer.headers.contains_key("ratelimit"), "{path}");
        assert!(!answer.headers.contains_key("ratelimit-policy"), "{path}");
    }
    assert_eq!(bench.store.admitted.lock().unwrap()[0].client, None);
    assert_eq!(bench.store.verifies.lock().unwrap()[0].client, None);
}

#[tokio::test]
async fn the_store_counts_the_client_that_asks() {
    let bench = Bench::with(FakeStore::new(incorrect()), FakeQueue::new());
    bench.post("/otp/generate", GENERATE).await;
    bench.post("/otp/verify", VERIFY).await;
    let here = Some(ClientBuckets::of(&keys(), "127.0.0.1".parse().unwrap()));
    assert_eq!(bench.store.admitted.lock().unwrap()[0].client, here);
    assert_eq!(bench.store.verifies.lock().unwrap()[0].client, here);
}
