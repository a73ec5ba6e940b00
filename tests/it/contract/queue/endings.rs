//! How jobs end, and what is kept of them.

use std::time::Duration;

use otpost::queue::{Counts, Outcome, Phase};
use rstest::rstest;

use super::bench::{Backend, Bench, Work, add, counts_reach, deciding, phase, reaches, within};

fn failing() -> Outcome {
    Outcome::Fail {
        reason: "no such mailbox".to_owned(),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn giving_up_fails_at_once_and_the_job_is_kept(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let bench = Bench::new(backend).await;
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| failing());
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    assert_eq!(within(told.recv()).await.unwrap().attempt, 1);
    reaches(&queue, &id, Some(Phase::Failed)).await;
    queue.clean().await.unwrap();
    work.stop().await;
    assert!(told.try_recv().is_err(), "it ran again");
    drop(queue);
    let queue = bench.open().await;
    assert_eq!(phase(&queue, &id).await, Some(Phase::Failed));
    let counted = bench.telemetry.encode();
    assert!(counted.contains("otpost_job_attempts_total{outcome=\"fail\"} 1"));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_completed_job_leaves_nothing_behind(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let bench = Bench::new(backend).await;
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| Outcome::Done);
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    within(told.recv()).await.unwrap();
    reaches(&queue, &id, None).await;
    counts_reach(&queue, Counts::default()).await;
    work.stop().await;
    if let Some(server) = &bench.redis {
        let mut connection = server.connect().await;
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(format!("*{}*", id.reveal()))
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!(keys.is_empty(), "{keys:?}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn completed_jobs_are_kept_as_long_as_configured(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.limits.keep_completed = Duration::from_secs(3_600);
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| Outcome::Done);
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    within(told.recv()).await.unwrap();
    reaches(&queue, &id, Some(Phase::Completed)).await;
    queue.clean().await.unwrap();
    assert_eq!(phase(&queue, &id).await, Some(Phase::Completed));
    work.stop().await;
    drop(queue);

    bench.limits.keep_completed = Duration::ZERO;
    let queue = bench.open().await;
    queue.clean().await.unwrap();
    assert_eq!(phase(&queue, &id).await, None);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn failed_jobs_are_cleaned_when_they_were_kept_long_enough(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.limits.keep_failed = Duration::from_millis(300);
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| failing());
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    within(told.recv()).await.unwrap();
    reaches(&queue, &id, Some(Phase::Failed)).await;
    let cleaning = async {
        while phase(&queue, &id).await.is_some() {
            queue.clean().await.unwrap();
        }
    };
    within(cleaning).await;
    assert_eq!(queue.counts().await.unwrap(), Counts::default());
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_failed_jobs_are_kept(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.limits.keep_failed_count = 2;
    let queue = bench.open().await;
    let (handler, _told) = deciding(|_| failing());
    let work = Work::start(&queue, handler);
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = add(&queue).await;
        reaches(&queue, &id, Some(Phase::Failed)).await;
        ids.push(id);
    }
    queue.clean().await.unwrap();
    assert_eq!(queue.counts().await.unwrap().failed, 2);
    assert_eq!(phase(&queue, &ids[1]).await, None);
    assert_eq!(phase(&queue, &ids[2]).await, Some(Phase::Failed));
    assert_eq!(phase(&queue, &ids[3]).await, Some(Phase::Failed));
    work.stop().await;
}
