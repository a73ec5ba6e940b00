//! What follows an attempt that did not succeed.

use std::sync::Arc;
use std::time::Duration;

use otpost::queue::{Counts, Handler, Outcome, Phase};
use rstest::rstest;
use tokio::time::Instant;

use super::bench::{
    Backend, Bench, Work, add, asking, counts_reach, deciding, phase, reaches, within,
};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_comes_after_its_wait_and_not_before(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.wait = Duration::from_millis(700);
    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    let first = attempts.next().await;
    assert_eq!(first.job.attempt, 1);
    let ended = Instant::now();
    first.retry();
    let second = attempts.next().await;
    let waited = ended.elapsed();
    assert_eq!(
        (second.job.id.as_str(), second.job.attempt),
        (id.reveal(), 2)
    );
    assert!(waited >= bench.wait, "{waited:?}");
    assert!(waited < bench.wait * 4, "{waited:?}");
    second.done();
    reaches(&queue, &id, None).await;
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_to_wait_comes_after_its_time_and_its_spread_whatever_its_attempt(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    // A back-off would be the spread alone.
    let (time, spread) = (Duration::from_millis(400), Duration::from_millis(50));
    let mut bench = Bench::new(backend).await;
    bench.wait = spread;
    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    let mut attempt = attempts.next().await;
    let requested_at = attempt.job.requested_at;
    for number in 1..=4 {
        assert_eq!(attempt.job.attempt, number);
        let ended = Instant::now();
        attempt.end(Outcome::Later {
            reason: "its turn has not come".to_owned(),
            after: time,
        });
        reaches(&queue, &id, Some(Phase::Retrying)).await;
        attempt = attempts.next().await;
        let waited = ended.elapsed();
        // Redis and the table know whole milliseconds.
        let wait = time + spread;
        assert!(waited + Duration::from_millis(1) >= wait, "{waited:?}");
        assert!(waited < wait * 4, "{waited:?}");
        assert_eq!(attempt.job.requested_at, requested_at);
    }
    attempt.done();
    reaches(&queue, &id, None).await;
    work.stop().await;
    let told = bench.telemetry.encode();
    assert!(told.contains("otpost_job_attempts_total{outcome=\"later\"} 4"));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_tried_as_often_as_it_asks_for(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.wait = Duration::from_millis(1);
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|job| {
        if job.attempt < 12 {
            Outcome::Retry {
                reason: "busy".to_owned(),
            }
        } else {
            Outcome::Done
        }
    });
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    for attempt in 1..=12 {
        assert_eq!(within(told.recv()).await.unwrap().attempt, attempt);
    }
    reaches(&queue, &id, None).await;
    work.stop().await;
    let told = bench.telemetry.encode();
    assert!(told.contains("otpost_job_attempts_total{outcome=\"retry\"} 11"));
    assert!(told.contains("otpost_job_attempts_total{outcome=\"done\"} 1"));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_outlives_the_process(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.wait = Duration::from_secs(2);
    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    let first = attempts.next().await;
    let ended = Instant::now();
    first.retry();
    reaches(&queue, &id, Some(Phase::Retrying)).await;
    work.stop().await;
    drop(queue);

    let queue = bench.open().await;
    assert_eq!(phase(&queue, &id).await, Some(Phase::Retrying));
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let second = attempts.next().await;
    assert_eq!(second.job.attempt, 2);
    // Redis and the table know whole milliseconds.
    assert!(ended.elapsed() + Duration::from_millis(1) >= bench.wait);
    second.done();
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_never_ends_is_cut_at_the_deadline_and_tried_again(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.limits.attempt_deadline = Duration::from_millis(300);
    let queue = bench.open().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handler: Handler = Arc::new(move |job| {
        let tell = tell.clone();
        Box::pin(async move {
            let attempt = job.attempt;
            let _ = tell.send((attempt, Instant::now()));
            if attempt == 1 {
                std::future::pending::<()>().await;
            }
            Outcome::Done
        })
    });
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    let (first, started) = within(told.recv()).await.unwrap();
    let (second, again) = within(told.recv()).await.unwrap();
    assert_eq!((first, second), (1, 2));
    let apart = again - started;
    assert!(
        apart >= bench.limits.attempt_deadline + bench.wait,
        "{apart:?}"
    );
    assert!(
        apart < Duration::from_secs(4),
        "it did not wait for the lease: {apart:?}"
    );
    reaches(&queue, &id, None).await;
    counts_reach(&queue, Counts::default()).await;
    work.stop().await;
}
