//! How jobs are added, run and stopped.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use otpost::otp::clock::{Clock, SystemClock};
use otpost::queue::job::RequestId;
use otpost::queue::{Counts, Handler, Outcome, Phase};
use rstest::rstest;
use tokio::time::Instant;

use super::bench::{
    Backend, Bench, Work, add, asking, counts_reach, data, deciding, id, phase, reaches, within,
};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_job_outlives_the_process_and_the_server(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    let queue = bench.open().await;
    let ids = join_all((0..50).map(|_| add(&queue))).await;
    drop(queue);
    if bench.redis.is_some() {
        bench.server().kill();
        bench.server().restart().await;
    }

    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| Outcome::Done);
    let work = Work::start(&queue, handler);
    let mut ran = Vec::new();
    for _ in &ids {
        ran.push(within(told.recv()).await.unwrap().id);
    }
    ran.sort_unstable();
    let mut added: Vec<String> = ids.iter().map(|id| id.reveal().to_owned()).collect();
    added.sort_unstable();
    assert_eq!(ran, added);
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_enqueue_whose_caller_has_gone_is_not_forgotten(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let bench = Bench::new(backend).await;
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| Outcome::Done);
    let work = Work::start(&queue, handler);
    let (id, data) = (id(), data());
    {
        // Polled once, so that it is on its way, and then given up.
        let mut call = queue.enqueue(&id, &data);
        let _ = futures::poll!(&mut call);
    }
    let after = add(&queue).await;
    counts_reach(&queue, Counts::default()).await;
    work.stop().await;
    let mut ran = HashSet::new();
    while let Ok(job) = told.try_recv() {
        ran.insert(job.id);
    }
    assert!(ran.contains(after.reveal()));
    if backend == Backend::Sqlite {
        assert!(ran.contains(id.reveal()), "it was on its way");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_job_runs_exactly_once_when_all_is_well(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let bench = Bench::new(backend).await;
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|_| Outcome::Done);
    let work = Work::start(&queue, handler);
    let before = SystemClock.now();
    let ids = join_all((0..500).map(|_| add(&queue))).await;
    let mut runs: HashMap<String, u32> = HashMap::new();
    for _ in &ids {
        let job = within(told.recv()).await.unwrap();
        assert_eq!((&job.data, job.attempt), (&data().to_json(), 1));
        assert!(job.requested_at >= before && job.requested_at <= SystemClock.now());
        *runs.entry(job.id).or_default() += 1;
    }
    counts_reach(&queue, Counts::default()).await;
    work.stop().await;
    assert!(told.try_recv().is_err(), "a job ran twice");
    assert!(ids.iter().all(|id| runs[id.reveal()] == 1));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_twice_is_one_job(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let bench = Bench::new(backend).await;
    let queue = bench.open().await;
    let id = id();
    let (first, second) = (data(), data());
    let both = tokio::join!(queue.enqueue(&id, &first), queue.enqueue(&id, &second));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(queue.counts().await.unwrap().waiting, 1);
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let attempt = attempts.next().await;
    queue.enqueue(&id, &first).await.unwrap();
    attempt.done();
    reaches(&queue, &id, None).await;
    work.stop().await;
    assert!(attempts.none_yet());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_run_at_once_than_configured(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.limits.concurrency = 3;
    let queue = bench.open().await;
    join_all((0..5).map(|_| add(&queue))).await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let running = [
        attempts.next().await,
        attempts.next().await,
        attempts.next().await,
    ];
    let full = Counts {
        waiting: 2,
        active: 3,
        ..Counts::default()
    };
    counts_reach(&queue, full).await;
    assert!(attempts.none_yet());
    for attempt in running {
        attempt.done();
    }
    attempts.next().await.done();
    attempts.next().await.done();
    counts_reach(&queue, Counts::default()).await;
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_running_jobs_and_leaves_the_others_queued(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.limits.concurrency = 2;
    let queue = bench.open().await;
    let ids = [add(&queue).await, add(&queue).await, add(&queue).await];
    let (handler, mut attempts) = asking();
    let mut work = Work::start(&queue, handler);
    let (one, other) = (attempts.next().await, attempts.next().await);
    let one_id = RequestId::parse(&one.job.id).unwrap();
    let other_id = RequestId::parse(&other.job.id).unwrap();
    assert!(one_id != ids[2] && other_id != ids[2]);
    work.begin_stop();
    one.done();
    reaches(&queue, &one_id, None).await;
    assert!(!work.has_ended(), "a job still runs");
    other.done();
    work.stop().await;
    assert!(attempts.none_yet(), "an attempt began after the stop");
    assert_eq!(phase(&queue, &other_id).await, None);
    let left = queue.counts().await.unwrap();
    assert_eq!((left.waiting, left.active), (1, 0));

    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let third = attempts.next().await;
    assert_eq!(third.job.id, ids[2].reveal());
    third.done();
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_nothing_to_do_stops_within_two_seconds(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let bench = Bench::new(backend).await;
    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    attempts.next().await.done();
    reaches(&queue, &id, None).await;
    let asked = Instant::now();
    work.stop().await;
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_up_answers_a_ping(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let bench = Bench::new(backend).await;
    bench.open().await.ping().await.unwrap();
}

/// The process that ran it is gone, with everything in its memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_embedded_queue_that_was_cut_off_runs_again_at_the_next_start() {
    let bench = Bench::new(Backend::Sqlite).await;
    let queue = bench.open().await;
    let id = add(&queue).await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let cut_off = attempts.next().await;
    drop((work, queue));

    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let again = attempts.next().await;
    assert_eq!(again.job.id, id.reveal());
    again.done();
    reaches(&queue, &id, None).await;
    drop(cut_off);
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_told_where_it_stands_through_its_whole_life(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.wait = Duration::from_secs(2);
    let queue = bench.open().await;
    assert_eq!(phase(&queue, &id()).await, None);
    let before = SystemClock.now();
    let id = add(&queue).await;
    let stands = queue.state(&id).await.unwrap().unwrap();
    assert_eq!(stands.phase, Phase::Waiting);
    assert!(stands.requested_at >= before && stands.requested_at <= SystemClock.now());

    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let first = attempts.next().await;
    assert_eq!(phase(&queue, &id).await, Some(Phase::Active));
    first.retry();
    reaches(&queue, &id, Some(Phase::Retrying)).await;
    let delayed = Counts {
        delayed: 1,
        ..Counts::default()
    };
    counts_reach(&queue, delayed).await;
    let second = attempts.next().await;
    assert_eq!(phase(&queue, &id).await, Some(Phase::Active));
    assert_eq!(second.job.requested_at, stands.requested_at);
    let now = queue.state(&id).await.unwrap().unwrap();
    assert_eq!(
        now.requested_at, stands.requested_at,
        "retries do not move it"
    );
    second.end(Outcome::Fail {
        reason: "no such mailbox".to_owned(),
    });
    reaches(&queue, &id, Some(Phase::Failed)).await;
    let failed = Counts {
        failed: 1,
        ..Counts::default()
    };
    counts_reach(&queue, failed).await;
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_on_while_one_of_them_panics(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let bench = Bench::new(backend).await;
    let queue = bench.open().await;
    let unlucky = add(&queue).await;
    let name = unlucky.reveal().to_owned();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handler: Handler = Arc::new(move |job| {
        let (name, tell) = (name.clone(), tell.clone());
        Box::pin(async move {
            let panics = job.id == name && job.attempt == 1;
            let _ = tell.send(job);
            assert!(!panics, "this attempt was meant to panic");
            Outcome::Done
        })
    });
    let work = Work::start(&queue, handler);
    let others = join_all((0..20).map(|_| add(&queue))).await;
    let mut runs: HashMap<String, u32> = HashMap::new();
    for _ in 0..others.len() + 2 {
        let job = within(told.recv()).await.unwrap();
        *runs.entry(job.id).or_default() += 1;
    }
    assert_eq!(runs[unlucky.reveal()], 2, "the panic cost one attempt");
    assert!(others.iter().all(|id| runs[id.reveal()] == 1));
    counts_reach(&queue, Counts::default()).await;
    work.stop().await;
}
