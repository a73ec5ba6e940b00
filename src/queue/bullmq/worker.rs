//! The workers on BullMQ: the crate fetches and acknowledges, this decides.
//!
//! Nothing hangs on a job's own options, which another producer may have left out and which become
//! defaults if the crate can't read them: retries are moved by hand, so that `attempts` does not
//! count. What fails on the way is left to the lease: the job runs again when it ends.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bullmq::worker::WorkerEvent;
use bullmq::{Error, JobOptions, Worker};
use futures::FutureExt;
use futures::future::join_all;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::jobs::{Jobs, requested_at};
use super::{CALL_DEADLINE, masked};
use crate::otp::clock::{Clock, SystemClock, UnixMillis, millis};
use crate::queue::attempt::{Attempts, Verdict};
use crate::queue::job::Job;
use crate::queue::{Handler, QueueLimits};
use crate::telemetry::Telemetry;

/// What an attempt may need after its deadline: to note the reason and to move the job.
const AFTERMATH: Duration = Duration::from_secs(5);
/// While Redis is away each worker meets errors all the time; one line in this time tells so.
const QUIET: Duration = Duration::from_secs(5);

/// Runs single jobs for the crate's workers.
#[derive(Clone)]
pub struct Processor {
    /// The way to the jobs.
    pub jobs: Jobs,
    /// Runs the attempts.
    pub attempts: Attempts,
    /// What an attempt does.
    pub handler: Handler,
    /// The lease and the deadline.
    pub limits: QueueLimits,
    /// Whom failures are told.
    pub telemetry: Arc<Telemetry>,
    /// When it is cancelled no further attempt begins.
    pub stop: CancellationToken,
}

/// The crate's workers; they stop when this is dropped, too.
pub struct Workers(Vec<Arc<Worker>>);

impl Processor {
    /// Runs one job and tells the crate what to do with it.
    pub async fn process(&self, job: bullmq::Job) -> Result<Value, Error> {
        if self.stop.is_cancelled() {
            // The crate has not been told to close yet. It puts such a job back at once.
            return Err(Error::RateLimited { delay_ms: 0 });
        }
        let fetched_at = UnixMillis(job.processed_on().unwrap_or_default());
        let spent = SystemClock.now().since(fetched_at);
        if spent + self.limits.attempt_deadline > self.limits.lease {
            // The answer of Redis was so late that the attempt could outlive its lease.
            return leave_to_the_lease();
        }
        let attempt = Job {
            id: job.id().to_owned(),
            data: job.data().clone(),
            requested_at: self.requested_at(&job).await,
            attempt: job.attempts_started().max(1),
        };
        let number = attempt.attempt;
        match self.attempts.run(&self.handler, attempt).await {
            Verdict::Done => Ok(Value::Null),
            Verdict::Retry { reason, after } => {
                self.note(job.id(), number, &reason).await;
                self.retry(&job, after).await;
                // The job has been moved, or nobody knows; either way the crate must not touch it.
                leave_to_the_lease()
            }
            Verdict::Fail { reason } => {
                self.note(job.id(), number, &reason).await;
                Err(Error::Unrecoverable(reason))
            }
        }
    }

    async fn retry(&self, job: &bullmq::Job, after: Duration) {
        // The crate turns the instant into a wait by the system's clock.
        let at = SystemClock.now().after(after);
        let failure = match tokio::time::timeout(CALL_DEADLINE, job.move_to_delayed(at.0)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => masked(&error.to_string()),
            Err(_) => format!("no answer within {CALL_DEADLINE:?}"),
        };
        self.telemetry.part_failed("queue", &failure);
    }

    /// The note is for people; the job goes its way without it.
    async fn note(&self, id: &str, attempt: u32, reason: &str) {
        let stack = serde_json::json!([format!("attempt {attempt}: {reason}")]).to_string();
        if let Err(error) = self.jobs.note(id, reason, &stack).await {
            let failure = masked(&error.to_string());
            self.telemetry.part_failed("queue", &failure);
        }
    }

    /// The crate drops all options if it can't read one of them, such as `delay: 100.5`; then they
    /// are read once more.
    async fn requested_at(&self, job: &bullmq::Job) -> UnixMillis {
        let timestamp = UnixMillis(job.timestamp());
        if !are_defaults(job.opts()) {
            return timestamp.after(Duration::from_millis(job.opts().delay.unwrap_or_default()));
        }
        match self.jobs.options(job.id()).await {
            Ok(options) => requested_at(timestamp, &options),
            Err(_) => timestamp,
        }
    }
}

/// The crate does nothing with a job that "was moved". If it was not, its lease ends and the check
/// for stalled jobs lets it run again.
fn leave_to_the_lease() -> Result<Value, Error> {
    Err(Error::Delayed)
}

fn are_defaults(options: &JobOptions) -> bool {
    options.attempts.is_none()
        && options.delay.is_none()
        && options.remove_on_complete.is_none()
        && options.remove_on_fail.is_none()
}

impl Workers {
    /// No workers yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one that runs.
    pub fn push(&mut self, worker: Worker) {
        self.0.push(Arc::new(worker));
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Worker>> {
        self.0.iter()
    }

    /// Claims no more and waits for the jobs that run. All close at once: each may need a second.
    pub async fn close(&self, attempt_deadline: Duration) {
        let patience = millis(attempt_deadline + AFTERMATH);
        join_all(self.0.iter().map(|worker| worker.close(patience))).await;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &self.0 {
            // The tasks of the crate outlive its value. The first poll tells them to end.
            let _ = worker.close(0).now_or_never();
        }
    }
}

/// Takes what a worker reports until it is closed; the crate would keep it all in memory.
pub async fn drain(worker: Arc<Worker>, telemetry: Arc<Telemetry>) {
    let mut complaints = Complaints::new(&telemetry);
    while let Some(event) = worker.next_event().await {
        match event {
            WorkerEvent::Error(text) => complaints.tell(&masked(&text)),
            WorkerEvent::Closed => return,
            _ => {}
        }
    }
}

/// Failures that come again and again, of which one in a while is told.
pub struct Complaints<'a> {
    telemetry: &'a Telemetry,
    last: Option<Instant>,
}

impl<'a> Complaints<'a> {
    /// None yet.
    pub fn new(telemetry: &'a Telemetry) -> Self {
        Self {
            telemetry,
            last: None,
        }
    }

    /// Tells of this one unless another was told just before.
    pub fn tell(&mut self, failure: &dyn Display) {
        if self.last.is_none_or(|last| last.elapsed() >= QUIET) {
            self.last = Some(Instant::now());
            self.telemetry.part_failed("queue", failure);
        }
    }
}
