//! The OTP jobs queue. Two backends, `bullmq` (Redis) and `sqlite`, one contract, held to it by one
//! suite of tests.
//!
//! A job is durable before `enqueue` answers and runs at least once. The queue owns leases,
//! deadlines and back-off; what an attempt means is the handler's decision ([`Outcome`]).

pub mod attempt;
pub mod bullmq;
pub mod job;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::otp::clock::{Clock, UnixMillis};
use crate::otp::code::Entropy;
use crate::telemetry::Telemetry;
use job::{Job, JobData, RequestId};

/// Does one attempt at a job and decides what becomes of it.
pub type Handler = Arc<dyn Fn(Job) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// What the API and the worker ask of a queue.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Puts a job onto the queue; durable before it answers. The same id twice is one job.
    async fn enqueue(&self, id: &RequestId, data: &JobData) -> Result<(), EnqueueError>;

    /// Where a job stands, or `None` if the queue does not know it (any more).
    async fn state(&self, id: &RequestId) -> Result<Option<JobState>, QueueError>;

    /// How many jobs stand where.
    async fn counts(&self) -> Result<Counts, QueueError>;

    /// Answers when the queue can be used.
    async fn ping(&self) -> Result<(), QueueError>;

    /// Removes what was kept long enough; `work` does so every minute.
    async fn clean(&self) -> Result<(), QueueError>;

    /// Runs jobs until `stop`; then claims no more, waits for those that run, and returns.
    async fn work(&self, handler: Handler, stop: CancellationToken) -> Result<(), QueueError>;
}

/// The numbers of a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Jobs that one process runs at once.
    pub concurrency: usize,
    /// The hard end of one attempt; shorter than the lease, so that no lease is renewed.
    pub attempt_deadline: Duration,
    /// How long a claimed job belongs to its worker.
    pub lease: Duration,
    /// Jobs that may wait before `enqueue` refuses.
    pub max_waiting: u64,
    /// How long completed jobs are kept; zero removes them at once.
    pub keep_completed: Duration,
    /// How long failed jobs are kept.
    pub keep_failed: Duration,
    /// How many failed jobs are kept.
    pub keep_failed_count: u32,
}

/// What a queue takes from outside.
#[derive(Clone)]
pub struct Sources {
    /// The time that jobs carry.
    pub clock: Arc<dyn Clock>,
    /// The chance in the wait before a retry.
    pub entropy: Arc<dyn Entropy>,
    /// Whom attempts and failures are told.
    pub telemetry: Arc<Telemetry>,
}

/// How often `work` removes what was kept long enough.
const CLEANING_INTERVAL: Duration = Duration::from_secs(60);

/// What becomes of a job after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It could not run yet, without a failure: it runs again after that time, and up to a minute
    /// more, so that those that wait for the same do not come back at once.
    Later {
        /// Why, without code or full address.
        reason: String,
        /// How long it has to wait at least.
        after: Duration,
    },
    /// It runs again after a back-off.
    Retry {
        /// Why, without code or full address.
        reason: String,
    },
    /// It will never succeed and is kept as failed.
    Fail {
        /// Why, without code or full address.
        reason: String,
    },
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobState {
    /// The place in its life.
    pub phase: Phase,
    /// When it was requested.
    pub requested_at: UnixMillis,
}

/// A place in the life of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its first attempt.
    Waiting,
    /// An attempt runs.
    Active,
    /// It waits for a further attempt.
    Retrying,
    /// It is done and kept for a while.
    Completed,
    /// It failed and is kept for a while.
    Failed,
}

/// How many jobs stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait to run now.
    pub waiting: u64,
    /// Run.
    pub active: u64,
    /// Wait for their time.
    pub delayed: u64,
    /// Failed and kept.
    pub failed: u64,
}

/// A job was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// As many jobs wait as `queue.max_waiting` allows.
    #[error("the queue holds as many jobs as `queue.max_waiting` allows")]
    Full,
    /// The queue failed; whether it took the job is unknown.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// The queue could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It can't be reached, or did not answer in time.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
}
