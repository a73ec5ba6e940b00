//! When store or queue fail, nothing is a success, and nothing of the reason reaches the client.

use std::time::Duration;

use rstest::rstest;
use tokio::time::Instant;

use super::{Bench, incorrect};
use crate::support::fakes::{FakeQueue, FakeStore, Mood};

const GENERATE: &str = r#"{"email":"ada@example.org"}"#;
const VERIFY: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;
const STATUS: &str = "/otp/requests/raebagbafaydqqcikbmga2dqpca";

fn bench(store_mood: Mood, queue_mood: Mood) -> Bench {
    let (mut store, mut queue) = (FakeStore::new(incorrect()), FakeQueue::new());
    store.mood = store_mood;
    queue.mood = queue_mood;
    Bench::with(store, queue)
}

#[tokio::test]
async fn a_failing_queue_or_store_is_a_503_and_never_a_success() {
    let bench = bench(Mood::Down, Mood::Down);
    for answer in [
        bench.post("/otp/generate", GENERATE).await,
        bench.post("/otp/verify", VERIFY).await,
        bench.get(STATUS).await,
    ] {
        answer.problem(503, "service_unavailable");
        assert!(!answer.text().contains("fake"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_right_code_is_no_success_while_the_store_fails() {
    let mut store = FakeStore::new(otpost::store::Verdict::Correct);
    store.mood = Mood::Down;
    let bench = Bench::with(store, FakeQueue::new());
    let answer = bench.post("/otp/verify", VERIFY).await;
    answer.problem(503, "service_unavailable");
    assert!(!bench.telemetry.encode().contains("outcome=\"correct\""));
}

#[tokio::test]
async fn a_queue_that_fails_does_not_hinder_verifying() {
    let bench = bench(Mood::Works, Mood::Down);
    let answer = bench.post("/otp/verify", VERIFY).await;
    answer.problem(422, "otp_incorrect");
    bench.get(STATUS).await.problem(503, "service_unavailable");
}

#[tokio::test]
async fn a_full_queue_is_a_503_of_its_own() {
    let mut queue = FakeQueue::new();
    queue.is_full = true;
    let bench = Bench::with(FakeStore::new(incorrect()), queue);
    let answer = bench.post("/otp/generate", GENERATE).await;
    answer.problem(503, "backlog_full");
    assert!(bench.queue.jobs.lock().unwrap().is_empty());
}

#[rstest]
#[case("/otp/generate", GENERATE)]
#[case("/otp/verify", VERIFY)]
#[tokio::test(start_paused = true)]
async fn a_silent_backend_is_given_up_after_2_s(#[case] path: &str, #[case] body: &'static str) {
    let bench = bench(Mood::Hangs, Mood::Hangs);
    let begin = Instant::now();
    bench
        .post(path, body)
        .await
        .problem(503, "service_unavailable");
    assert_eq!(begin.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_is_given_up_after_2_s_when_a_state_is_asked_for() {
    let begin = Instant::now();
    let answer = bench(Mood::Hangs, Mood::Works).get(STATUS).await;
    answer.problem(503, "service_unavailable");
    assert!(begin.elapsed() < Duration::from_millis(2_100));
}

#[tokio::test]
async fn a_panic_is_a_500_without_its_text_and_harms_no_other_request() {
    let bench = bench(Mood::Works, Mood::Panics);
    let answer = bench.post("/otp/generate", GENERATE).await;
    answer.problem(500, "internal_error");
    assert!(!answer.text().contains("fake"), "{}", answer.text());
    assert_eq!(bench.post("/otp/verify", VERIFY).await.status, 422);
}
