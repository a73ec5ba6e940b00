//! The operations listener.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use otpost::api::ops::{self, Operations};
use otpost::otp::code::OsEntropy;
use otpost::telemetry::Telemetry;
use rstest::rstest;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Answer, incorrect};
use crate::support::fakes::{FakeQueue, FakeStore, Mood};

async fn ask(path: &str, store: Mood, queue: Mood, is_draining: bool) -> Answer {
    let (mut fake_store, mut fake_queue) = (FakeStore::new(incorrect()), FakeQueue::new());
    fake_store.mood = store;
    fake_queue.mood = queue;
    let draining = CancellationToken::new();
    if is_draining {
        draining.cancel();
    }
    let router = ops::router(Operations {
        store: Arc::new(fake_store),
        queue: Arc::new(fake_queue),
        telemetry: Arc::new(Telemetry::default()),
        entropy: Arc::new(OsEntropy),
        is_strict: false,
        draining,
    });
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    Answer::of(&router, request).await
}

#[tokio::test]
async fn a_process_lives_whatever_its_parts_do() {
    let answer = ask("/livez", Mood::Down, Mood::Hangs, true).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "ok\n");
    answer.assert_secured();
}

#[tokio::test]
async fn a_process_is_ready_when_store_and_queue_answer() {
    let answer = ask("/readyz", Mood::Works, Mood::Works, false).await;
    assert_eq!(answer.status, 200);
    let parts = json!({"process": "ok", "queue": "ok", "store": "ok"});
    assert_eq!(answer.json(), json!({"status": "ready", "parts": parts}));
    answer.assert_secured();
}

#[rstest]
#[case(Mood::Down, Mood::Works, false, ["ok", "ok", "unavailable"])]
#[case(Mood::Works, Mood::Down, false, ["ok", "unavailable", "ok"])]
#[case(Mood::Hangs, Mood::Hangs, false, ["ok", "unavailable", "unavailable"])]
#[case(Mood::Works, Mood::Works, true, ["draining", "ok", "ok"])]
#[tokio::test(start_paused = true)]
async fn a_process_that_lacks_a_part_or_drains_is_not_ready(
    #[case] store: Mood,
    #[case] queue: Mood,
    #[case] is_draining: bool,
    #[case] expected: [&str; 3],
) {
    let document = ask("/readyz", store, queue, is_draining)
        .await
        .problem(503, "service_unavailable");
    let [process, queue, store] = expected;
    let parts = json!({"process": process, "queue": queue, "store": store});
    assert_eq!(document["parts"], parts);
}

#[tokio::test(start_paused = true)]
async fn metrics_hold_the_queue_depth_and_come_without_it_too() {
    let answer = ask("/metrics", Mood::Works, Mood::Works, false).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(
        answer
            .text()
            .contains("otpost_queue_jobs{state=\"waiting\"} 3")
    );
    assert!(answer.text().ends_with("# EOF\n"));
    for queue in [Mood::Down, Mood::Hangs] {
        let answer = ask("/metrics", Mood::Works, queue, false).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("state=\"waiting\""));
    }
}

#[tokio::test]
async fn the_operations_listener_has_no_other_paths() {
    for path in ["/", "/otp/verify", "/dev/mailbox", "/livez/"] {
        let answer = ask(path, Mood::Works, Mood::Works, false).await;
        answer.problem(404, "not_found");
    }
}
