//! What only the queue on BullMQ promises: other producers, lost workers, far servers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bullmq::options::RedisConnectionOptions;
use bullmq::{JobOptions, Queue, QueueOptions};
use futures::future::join_all;
use otpost::otp::clock::{Clock, SystemClock, UnixMillis};
use otpost::queue::{Counts, Handler, Outcome, Phase, QueueLimits};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bench::{
    Backend, Bench, NAME, PREFIX, Work, add, asking, counts_reach, deciding, phase, reaches, within,
};
use crate::support::process::RESCUE;

/// The crate's own queue, as any other producer would use it.
async fn foreign(bench: &Bench) -> Queue {
    let connection = RedisConnectionOptions::new().url(bench.redis.as_ref().unwrap().url());
    let options = QueueOptions::new().connection(connection).prefix(PREFIX);
    Queue::with_options(NAME, options).await.unwrap()
}

/// Writes fields of a job's hash.
async fn set(bench: &Bench, id: &str, fields: &[(&str, &str)]) {
    let mut connection = bench.redis.as_ref().unwrap().connect().await;
    redis::cmd("HSET")
        .arg(format!("{PREFIX}:{NAME}:{id}"))
        .arg(fields)
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
}

async fn get(bench: &Bench, id: &str, field: &str) -> Option<String> {
    let mut connection = bench.redis.as_ref().unwrap().connect().await;
    redis::cmd("HGET")
        .arg(format!("{PREFIX}:{NAME}:{id}"))
        .arg(field)
        .query_async(&mut connection)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_producer_is_tried_as_often_as_ours() {
    let mut bench = Bench::new(Backend::Bullmq).await;
    bench.wait = Duration::from_millis(1);
    let queue = bench.open().await;
    let foreign = foreign(&bench).await;
    let job = json!({"email": "ada@example.org"});
    let added = foreign
        .add(NAME, job.clone())
        .options(JobOptions::new().attempts(1))
        .await
        .unwrap();
    let (handler, mut told) = deciding(|job| {
        if job.attempt < 6 {
            Outcome::Retry {
                reason: "busy".to_owned(),
            }
        } else {
            Outcome::Done
        }
    });
    let work = Work::start(&queue, handler);
    for attempt in 1..=6 {
        let told = within(told.recv()).await.unwrap();
        assert_eq!((told.attempt, &told.data), (attempt, &job));
        assert_eq!(told.requested_at, UnixMillis(added.timestamp()));
    }
    let gone = async {
        while get(&bench, added.id(), "name").await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
    work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_as_old_as_its_producer_wished() {
    let mut bench = Bench::new(Backend::Bullmq).await;
    bench.wait = Duration::from_millis(1);
    let queue = bench.open().await;
    let foreign = foreign(&bench).await;
    let before = SystemClock.now();
    let delayed = foreign
        .add(NAME, json!({}))
        .delay(Duration::from_millis(300))
        .await
        .unwrap();
    // A producer in Node may write an option that the crate can't read; then it knows none of them.
    let odd = foreign.add(NAME, json!({})).await.unwrap();
    let options = r#"{"attempts":3,"delay":250.5,"removeOnComplete":true}"#;
    set(&bench, odd.id(), &[("opts", options)]).await;

    let (handler, mut told) = deciding(|job| {
        if job.attempt < 2 {
            Outcome::Retry {
                reason: "busy".to_owned(),
            }
        } else {
            Outcome::Done
        }
    });
    let work = Work::start(&queue, handler);
    for _ in 0..4 {
        let job = within(told.recv()).await.unwrap();
        let (timestamp, delay) = if job.id == delayed.id() {
            assert!(SystemClock.now() >= before.after(Duration::from_millis(300)));
            (delayed.timestamp(), 300)
        } else {
            (odd.timestamp(), 250)
        };
        assert_eq!(job.requested_at, UnixMillis(timestamp + delay));
    }
    work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_readable_data_reaches_the_handler() {
    let bench = Bench::new(Backend::Bullmq).await;
    let queue = bench.open().await;
    let foreign = foreign(&bench).await;
    let job = foreign.add(NAME, json!({})).await.unwrap();
    set(&bench, job.id(), &[("data", "{\"email\":")]).await;
    let (handler, mut told) = deciding(|_| Outcome::Fail {
        reason: "no job".to_owned(),
    });
    let work = Work::start(&queue, handler);
    assert_eq!(within(told.recv()).await.unwrap().data, json!(null));
    work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_shown_why_attempts_failed() {
    let mut bench = Bench::new(Backend::Bullmq).await;
    bench.wait = Duration::from_secs(2);
    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let id = add(&queue).await;
    attempts.next().await.retry();
    reaches(&queue, &id, Some(Phase::Retrying)).await;
    let busy = "the mail server is busy";
    assert_eq!(
        get(&bench, id.reveal(), "failedReason").await.as_deref(),
        Some(busy)
    );
    attempts.next().await.end(Outcome::Fail {
        reason: "no such mailbox".to_owned(),
    });
    reaches(&queue, &id, Some(Phase::Failed)).await;
    let reason = get(&bench, id.reveal(), "failedReason").await;
    assert_eq!(reason.as_deref(), Some("no such mailbox"));
    let stack = get(&bench, id.reveal(), "stacktrace").await;
    assert_eq!(stack.as_deref(), Some(r#"["attempt 2: no such mailbox"]"#));
    work.stop().await;
}

/// A worker in a runtime of its own, which can be torn away like a killed process: nothing of it
/// tells Redis.
struct Doomed(Option<Runtime>);

impl Doomed {
    fn start(bench: &Arc<Bench>, handler: Handler) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (bench, stop) = (Arc::clone(bench), CancellationToken::new());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn_on(
            async move {
                let queue = bench.open().await;
                queue.work(handler, stop).await.unwrap();
            },
            runtime.handle(),
        );
        tasks.detach_all();
        Self(Some(runtime))
    }

    fn kill(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// How long a job of a killed worker takes to run again on another worker.
async fn recovery(limits: QueueLimits, times: u32) -> Duration {
    let mut bench = Bench::new(Backend::Bullmq).await;
    bench.limits = limits;
    let bench = Arc::new(bench);
    let queue = bench.open().await;
    let id = add(&queue).await;
    let mut killed_at = Instant::now();
    for attempt in 1..=times {
        let (handler, mut attempts) = asking();
        let mut doomed = Doomed::start(&bench, handler);
        let running = attempts.next().await;
        assert_eq!(running.job.attempt, attempt);
        doomed.kill();
        killed_at = Instant::now();
        drop(running);
    }
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let again = attempts.next().await;
    let took = killed_at.elapsed();
    assert_eq!(again.job.id, id.reveal());
    assert_eq!(again.job.attempt, times + 1);
    again.done();
    reaches(&queue, &id, None).await;
    work.stop().await;
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_job_runs_again_within_twenty_seconds() {
    let took = recovery(super::bench::LIMITS, 1).await;
    assert!(took < RESCUE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_workers_die_again_and_again_is_not_given_up() {
    let limits = QueueLimits {
        attempt_deadline: Duration::from_millis(400),
        lease: Duration::from_millis(600),
        ..super::bench::LIMITS
    };
    recovery(limits, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_dropped_claims_no_more() {
    let bench = Bench::new(Backend::Bullmq).await;
    let queue = bench.open().await;
    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let first = add(&queue).await;
    attempts.next().await.done();
    reaches(&queue, &first, None).await;
    drop(work);

    let (handler, mut others) = asking();
    let work = Work::start(&queue, handler);
    for _ in 0..20 {
        add(&queue).await;
        others.next().await.done();
    }
    work.stop().await;
    assert!(attempts.none_yet());
}

/// All jobs run once, are retried and leave nothing behind.
async fn works(bench: &Bench) {
    let queue = bench.open().await;
    let (handler, mut told) = deciding(|job| match job.attempt {
        1 => Outcome::Retry {
            reason: "busy".to_owned(),
        },
        _ => Outcome::Done,
    });
    let work = Work::start(&queue, handler);
    let ids = join_all((0..200).map(|_| add(&queue))).await;
    let mut done = HashSet::new();
    for _ in 0..2 * ids.len() {
        let job = within(told.recv()).await.unwrap();
        assert!(job.attempt == 1 || done.insert(job.id), "it ran twice");
    }
    assert_eq!(done.len(), ids.len());
    counts_reach(&queue, Counts::default()).await;
    queue.clean().await.unwrap();
    assert_eq!(phase(&queue, &ids[0]).await, None);
    let asked = Instant::now();
    work.stop().await;
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workers_share_the_jobs_of_a_far_server() {
    let mut bench = Bench::new(Backend::Bullmq).await;
    // The short form of the loopback address is not known to be near.
    bench.host = "127.1";
    works(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_works_on_a_cluster() {
    works(&Bench::cluster().await).await;
}
