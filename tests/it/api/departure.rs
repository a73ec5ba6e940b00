//! A client that goes away in the midst of its request: what was begun is finished all the same.

use std::future::pending;
use std::sync::Arc;

use otpost::store::{Cause, Verdict};
use tokio::time::timeout;

use super::Bench;
use super::running::PATIENCE;
use crate::support::fakes::{FakeQueue, FakeStore, Hold};

const GENERATE: &str = r#"{"email":"ada@example.org"}"#;
const VERIFY: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;

/// A router whose store holds back whoever asks, and a global budget.
fn holding(queue: FakeQueue) -> (Bench, Arc<Hold>) {
    let hold = Arc::new(Hold::default());
    let mut store = FakeStore::new(Verdict::Incorrect(Cause::Wrong));
    store.hold = Some(hold.clone());
    let bench = Bench::bounded(store, queue);
    (bench, hold)
}

/// The client goes while the store decides; then the store answers.
async fn leave(bench: &Bench, hold: &Hold, path: &str, body: &'static str) {
    let left = async {
        tokio::select! {
            answer = bench.post(path, body) => panic!("answered with {}", answer.status),
            () = hold.entered.notified() => {}
        }
    };
    timeout(PATIENCE, left).await.unwrap();
    hold.release.notify_one();
    bench.rest().await;
}

#[tokio::test]
async fn a_wrong_code_counts_for_breaker_and_metrics_though_its_client_has_gone() {
    let (bench, hold) = holding(FakeQueue::new());
    leave(&bench, &hold, "/otp/verify", VERIFY).await;
    assert_eq!(bench.breaker.take(), 1);
    let metrics = bench.telemetry.encode();
    assert!(metrics.contains("otpost_otp_verifies_total{outcome=\"wrong\"} 1"));
    assert!(metrics.contains("otpost_otp_guess_mass_total 0.000002"));
}

#[tokio::test]
async fn a_mail_is_put_onto_the_queue_though_its_client_has_gone() {
    let (bench, hold) = holding(FakeQueue::new());
    leave(&bench, &hold, "/otp/generate", GENERATE).await;
    assert_eq!(bench.queue.jobs.lock().unwrap().len(), 1);
    assert_eq!(bench.store.pacing.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_mail_took_is_given_back_though_its_client_has_gone() {
    let mut queue = FakeQueue::new();
    queue.is_full = true;
    let (bench, hold) = holding(queue);
    leave(&bench, &hold, "/otp/generate", GENERATE).await;
    let admitted = bench.store.admitted.lock().unwrap().clone();
    assert_eq!(admitted.len(), 1);
    assert_eq!(*bench.store.given_back.lock().unwrap(), admitted);
    assert!(bench.store.pacing.lock().unwrap().is_empty());
}

#[tokio::test]
async fn clients_that_hang_up_make_no_room_for_more_than_there_are_connections() {
    let bench = Bench::new();
    for _ in 0..10_000 {
        bench.tasks.spawn(pending::<()>());
    }
    for (path, body) in [("/otp/generate", GENERATE), ("/otp/verify", VERIFY)] {
        let answer = bench.post(path, body).await;
        answer.problem(503, "service_unavailable");
    }
    bench.assert_untouched();
}
