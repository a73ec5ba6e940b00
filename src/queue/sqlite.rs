//! The queue in the embedded database, for one process.
//!
//! A job is committed before `enqueue` answers and then handed over in memory: no polling, no
//! write to claim it. Its end is written after the attempt without holding up the next one; a
//! crash in between runs the job again.

mod backlog;
mod table;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::backlog::{Backlog, Claim};
use self::table::StoredJob;
use super::attempt::{Attempts, Verdict};
use super::job::{Job, JobData, RequestId};
use super::{
    CLEANING_INTERVAL, Counts, EnqueueError, Handler, JobQueue, JobState, Phase, QueueError,
    QueueLimits, Sources,
};
use crate::otp::clock::UnixMillis;
use crate::sqlite::{Prepared, Sqlite, SqliteError};

/// Jobs whose attempt has ended and whose end is not yet written; then no more are claimed, so
/// that a database that does not take writes can't let mails go out again and again.
const UNSETTLED: usize = 512;
/// The pause after a write, or a read, that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The queue in the embedded database.
pub struct SqliteQueue {
    shared: Arc<Shared>,
}

struct Shared {
    sqlite: Sqlite,
    limits: QueueLimits,
    sources: Sources,
    attempts: Attempts,
    backlog: Arc<Backlog>,
}

/// What an attempt holds: its job, and its share of the worker.
struct Work {
    claim: Claim,
    job: Option<StoredJob>,
    running: OwnedSemaphorePermit,
    unsettled: OwnedSemaphorePermit,
}

impl SqliteQueue {
    /// Loads the jobs that wait. Only one queue may work on a database.
    pub async fn open(
        sqlite: Sqlite,
        limits: QueueLimits,
        sources: Sources,
    ) -> Result<Self, QueueError> {
        let backlog = Backlog::new(limits.max_waiting);
        let (clock_now, now) = (sources.clock.now(), Instant::now());
        for (sequence, run_at) in sqlite.run(table::waiting).await? {
            if run_at <= clock_now {
                backlog.ready(sequence, None);
            } else {
                backlog.delay(sequence, now + run_at.since(clock_now));
            }
        }
        let attempts = Attempts::new(limits.attempt_deadline, &sources);
        Ok(Self {
            shared: Arc::new(Shared {
                sqlite,
                limits,
                sources,
                attempts,
                backlog,
            }),
        })
    }
}

impl SqliteQueue {
    /// Takes a place in the backlog and prepares the insertion of a job, for an operation that has
    /// more to write. The place is given back unless the job becomes durable.
    pub fn prepare(&self, id: &RequestId, data: &JobData) -> Result<Prepared, EnqueueError> {
        let place = self.shared.backlog.reserve().ok_or(EnqueueError::Full)?;
        let job = StoredJob {
            id: id.reveal().to_owned(),
            data: data.to_json().to_string(),
            requested_at: self.shared.sources.clock.now(),
            attempts: 0,
        };
        Ok(Prepared::new(move |db| {
            let added = table::insert(db, &job)?;
            // This runs whether or not the caller still waits, so that no stored job is forgotten.
            Ok(Box::new(move || {
                if let Some(sequence) = added {
                    place.fill(sequence, job);
                }
            }))
        }))
    }
}

#[async_trait]
impl JobQueue for SqliteQueue {
    async fn enqueue(&self, id: &RequestId, data: &JobData) -> Result<(), EnqueueError> {
        let insertion = self.prepare(id, data)?;
        let run = move |db: &rusqlite::Connection| Ok(((), Some(insertion.run(db)?)));
        let written = self.shared.sqlite.run_with(run).await;
        Ok(written.map_err(QueueError::from)?)
    }

    async fn state(&self, id: &RequestId) -> Result<Option<JobState>, QueueError> {
        // An end is written before its attempt leaves the active ones, so looking there first
        // never misses it.
        let active = self.shared.backlog.is_active(id.reveal());
        let id = id.reveal().to_owned();
        let found = self
            .shared
            .sqlite
            .run(move |db| table::find(db, &id))
            .await?;
        Ok(found.map(|found| JobState {
            phase: match found.state.as_str() {
                "completed" => Phase::Completed,
                "failed" => Phase::Failed,
                _ if active => Phase::Active,
                _ if found.attempts > 0 => Phase::Retrying,
                _ => Phase::Waiting,
            },
            requested_at: found.requested_at,
        }))
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        let failed = self.shared.sqlite.run(table::failed).await?;
        let depth = self.shared.backlog.depth();
        Ok(Counts {
            waiting: depth.ready,
            active: depth.active,
            delayed: depth.delayed,
            failed,
        })
    }

    async fn ping(&self) -> Result<(), QueueError> {
        Ok(self.shared.sqlite.ping().await?)
    }

    async fn clean(&self) -> Result<(), QueueError> {
        let (limits, now) = (self.shared.limits, self.shared.sources.clock.now());
        let clean = move |db: &rusqlite::Connection| table::clean(db, &limits, now);
        self.shared.sqlite.empty_log();
        Ok(self.shared.sqlite.run(clean).await?)
    }

    async fn work(&self, handler: Handler, stop: CancellationToken) -> Result<(), QueueError> {
        let concurrency = self.shared.limits.concurrency;
        let running = Arc::new(Semaphore::new(concurrency));
        let unsettled = Arc::new(Semaphore::new(concurrency + UNSETTLED));
        let mut cleaning = tokio::time::interval(CLEANING_INTERVAL);
        cleaning.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // If this future is dropped, so are the attempts, and their claims are given back.
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = cleaning.tick() => {
                    if let Err(error) = self.clean().await {
                        self.shared.sources.telemetry.part_failed("queue", &error);
                    }
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                work = self.shared.claim(&running, &unsettled) => {
                    let (shared, handler) = (Arc::clone(&self.shared), Arc::clone(&handler));
                    let stop = stop.clone();
                    tasks.spawn(async move { shared.attempt(work, &handler, &stop).await });
                }
            }
        }
        while tasks.join_next().await.is_some() {}
        // What the last jobs held is not to lie about until the next start; but all of them have
        // ended well, whatever becomes of it.
        if let Err(error) = self.clean().await {
            self.shared.sources.telemetry.part_failed("queue", &error);
        }
        Ok(())
    }
}

impl Shared {
    /// Claims the next job once there is room for it. Nothing is lost if the wait is given up.
    async fn claim(&self, running: &Arc<Semaphore>, unsettled: &Arc<Semaphore>) -> Work {
        let closed = "these semaphores are never closed";
        let running = Arc::clone(running).acquire_owned().await.expect(closed);
        let unsettled = Arc::clone(unsettled).acquire_owned().await.expect(closed);
        let (claim, job) = self.backlog.next().await;
        Work {
            claim,
            job,
            running,
            unsettled,
        }
    }

    async fn attempt(&self, work: Work, handler: &Handler, stop: &CancellationToken) {
        let Work {
            mut claim,
            job,
            running,
            unsettled,
        } = work;
        let sequence = claim.sequence();
        let job = match job {
            Some(job) => Ok(Some(job)),
            None => self.sqlite.run(move |db| table::read(db, sequence)).await,
        };
        let job = match job {
            Ok(Some(job)) => job,
            // Somebody else has removed it.
            Ok(None) => return claim.settle(),
            Err(error) => {
                self.sources.telemetry.part_failed("queue", &error);
                return claim.settle_until(Instant::now() + PAUSE);
            }
        };
        claim.begin(&job.id);
        let attempt = job.attempts.saturating_add(1);
        let job = Job {
            // A tool may have written anything; the handler refuses what is no job.
            data: serde_json::from_str(&job.data).unwrap_or_default(),
            id: job.id,
            requested_at: job.requested_at,
            attempt,
        };
        let verdict = self.attempts.run(handler, job).await;
        drop(running);
        self.settle(claim, attempt, verdict, stop).await;
        drop(unsettled);
    }

    /// Writes what became of a job, again and again until it is written.
    async fn settle(&self, claim: Claim, attempt: u32, verdict: Verdict, stop: &CancellationToken) {
        let now = self.sources.clock.now();
        let at = match verdict {
            Verdict::Retry { after, .. } => Some(Instant::now() + after),
            _ => None,
        };
        while let Err(error) = self.write(claim.sequence(), attempt, &verdict, now).await {
            self.sources.telemetry.part_failed("queue", &error);
            tokio::select! {
                // The claim is dropped: the job runs again after the next start.
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        match at {
            Some(at) => claim.settle_until(at),
            None => claim.settle(),
        }
    }

    async fn write(
        &self,
        sequence: i64,
        attempt: u32,
        verdict: &Verdict,
        now: UnixMillis,
    ) -> Result<(), SqliteError> {
        let verdict = verdict.clone();
        let keeps_completed = !self.limits.keep_completed.is_zero();
        let write = move |db: &rusqlite::Connection| match verdict {
            Verdict::Done if keeps_completed => table::end(db, sequence, attempt, None, now),
            Verdict::Done => table::remove(db, sequence),
            Verdict::Retry { after, .. } => table::retry(db, sequence, attempt, now.after(after)),
            Verdict::Fail { reason } => table::end(db, sequence, attempt, Some(&reason), now),
        };
        self.sqlite.run(write).await
    }
}

impl From<SqliteError> for QueueError {
    fn from(error: SqliteError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
