//! What the queue on BullMQ promises when its server goes away and comes back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use otpost::queue::{EnqueueError, JobQueue, Outcome, Phase};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bench::{Backend, Bench, Work, add, asking, data, deciding, id, phase, reaches, within};

/// Long enough for the crate's own attempts to connect to become rare.
const LONG_OUTAGE: Duration = Duration::from_secs(8);

/// Adds jobs one after the other until told to stop, and tells which were accepted.
async fn add_all_the_time(
    queue: Arc<dyn JobQueue>,
    accepted: mpsc::UnboundedSender<String>,
    stop: CancellationToken,
) {
    let data = data();
    while !stop.is_cancelled() {
        let id = id();
        match queue.enqueue(&id, &data).await {
            Ok(()) => accepted.send(id.reveal().to_owned()).unwrap(),
            Err(EnqueueError::Queue(_)) => tokio::task::yield_now().await,
            Err(EnqueueError::Full) => panic!("the backlog is not full"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_under_load_loses_no_accepted_job() {
    let mut bench = Bench::new(Backend::Bullmq).await;
    bench.limits.attempt_deadline = Duration::from_secs(1);
    bench.limits.lease = Duration::from_secs(2);
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| Outcome::Done);
    let work = Work::start(&queue, handler);
    let (tell, mut accepted) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let mut producers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        producers.spawn(add_all_the_time(
            Arc::clone(&queue),
            tell.clone(),
            stop.clone(),
        ));
    }
    drop(tell);
    let mut waiting = HashSet::new();
    for _ in 0..2 {
        for _ in 0..300 {
            waiting.insert(within(accepted.recv()).await.unwrap());
        }
        bench.server().kill();
        let refused = async {
            while queue.ping().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        within(refused).await;
        bench.server().restart().await;
        let back = Instant::now();
        // What was accepted before the server was killed is still in the channel.
        while accepted.try_recv().is_ok_and(|id| waiting.insert(id)) {}
        waiting.insert(within(accepted.recv()).await.unwrap());
        assert!(
            back.elapsed() < Duration::from_secs(2),
            "{:?}",
            back.elapsed()
        );
    }
    stop.cancel();
    while let Some(ended) = within(producers.join_next()).await {
        ended.unwrap();
    }
    while let Some(id) = accepted.recv().await {
        waiting.insert(id);
    }
    while !waiting.is_empty() {
        waiting.remove(&within(told.recv()).await.unwrap().id);
    }
    work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_an_enqueue_is_refused_within_its_deadline() {
    let mut bench = Bench::new(Backend::Bullmq).await;
    let queue = bench.open().await;
    let before = add(&queue).await;
    bench.server().kill();
    for _ in 0..3 {
        let asked = Instant::now();
        let refused = queue.enqueue(&id(), &data()).await;
        assert!(
            matches!(refused, Err(EnqueueError::Queue(_))),
            "{refused:?}"
        );
        assert!(
            asked.elapsed() < Duration::from_millis(2_500),
            "{:?}",
            asked.elapsed()
        );
        assert!(queue.state(&before).await.is_err());
        assert!(queue.counts().await.is_err());
        assert!(queue.ping().await.is_err());
    }
    bench.server().restart().await;
    let back = Instant::now();
    let taken = async {
        while queue.enqueue(&id(), &data()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(taken).await;
    assert!(
        back.elapsed() < Duration::from_secs(2),
        "{:?}",
        back.elapsed()
    );
    assert_eq!(phase(&queue, &before).await, Some(Phase::Waiting));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_outage_jobs_are_taken_and_run_at_once() {
    let mut bench = Bench::new(Backend::Bullmq).await;
    // Each of the two workers runs one of the two jobs, since each can run but one.
    bench.limits.concurrency = 1;
    let (worked, started, idle) = (bench.open().await, bench.open().await, bench.open().await);
    let (handler, mut attempts) = asking();
    let before = Work::start(&worked, Arc::clone(&handler));
    let first = add(&idle).await;
    attempts.next().await.done();
    reaches(&idle, &first, None).await;

    bench.server().kill();
    let meanwhile = Work::start(&started, handler);
    let answers = async {
        while worked.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let answered = tokio::time::timeout(LONG_OUTAGE, answers).await;
    assert!(answered.is_err(), "the server is away");
    bench.server().restart().await;

    let back = Instant::now();
    // Nothing was added through this one during the outage, and it has no workers.
    add(&idle).await;
    assert!(
        back.elapsed() < Duration::from_secs(2),
        "{:?}",
        back.elapsed()
    );
    add(&idle).await;
    let both = [attempts.next().await, attempts.next().await];
    assert!(
        back.elapsed() < Duration::from_secs(4),
        "{:?}",
        back.elapsed()
    );
    for attempt in both {
        attempt.done();
    }
    before.stop().await;
    meanwhile.stop().await;
}
