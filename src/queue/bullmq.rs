//! The queue on BullMQ, through the official crate: any number of processes, and every tool that
//! knows BullMQ, on one queue.
//!
//! A job is durable as far as Redis has acknowledged it. It runs under a lease that is longer than
//! its attempt; when a worker dies, the lease ends and another takes the job.

mod backlog;
mod crate_options;
mod jobs;
mod producer;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bullmq::options::RedisConnectionOptions;
use bullmq::{JobOptions, Worker};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::backlog::Backlog;
use self::jobs::Jobs;
use self::producer::Producer;
use self::worker::{Complaints, Processor, Workers, drain};
use super::attempt::Attempts;
use super::job::{JobData, NAME, RequestId, mask};
use super::{
    CLEANING_INTERVAL, Counts, EnqueueError, Handler, JobQueue, JobState, QueueError, QueueLimits,
    Sources,
};
use crate::otp::clock::millis;
use crate::redis_link::{ConnectError, LinkError, RedisLink, RedisTarget};

/// The end of one call to Redis, after which the caller hears that the queue is unavailable.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// How long a connection may be silent before it counts as lost: well within a call's deadline.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// How often a process with workers asks whether Redis is there.
const WATCH: Duration = Duration::from_secs(1);
/// The pause between two attempts to start workers.
const PAUSE: Duration = Duration::from_millis(200);
/// The end of the start; the crate alone would try for 40 s.
const START_DEADLINE: Duration = Duration::from_secs(5);
/// Jobs that one script removes.
const CLEANED_AT_ONCE: u32 = 1_000;

/// The queue on BullMQ.
pub struct BullmqQueue {
    jobs: Jobs,
    producer: Producer,
    backlog: Backlog,
    target: RedisTarget,
    connection: RedisConnectionOptions,
    name: String,
    prefix: String,
    limits: QueueLimits,
    sources: Sources,
}

/// The queue could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Redis does not answer.
    #[error("the queue can't reach Redis: {0}")]
    Link(#[from] LinkError),
    /// Redis can't be reached with these settings.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The crate refused the name or the prefix, or could not connect.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl BullmqQueue {
    /// Connects beside `link`, which leads to the same Redis. On a cluster `prefix` needs a hash
    /// tag, such as `{bull}`.
    pub async fn connect(
        target: RedisTarget,
        link: RedisLink,
        name: &str,
        prefix: &str,
        limits: QueueLimits,
        sources: Sources,
    ) -> Result<Self, StartError> {
        // The crate retries for long and hides why; the link answers at once.
        link.ping().await?;
        let connection = crate_options::connection(&target)?;
        let options = crate_options::queue(&connection, prefix, &limits);
        let producer = Producer::connect(name, options).await?;
        Ok(Self {
            jobs: Jobs::new(link, producer.current().queue.keys().clone()),
            producer,
            backlog: Backlog::default(),
            target,
            connection,
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            limits,
            sources,
        })
    }

    /// Adds a job by way of a sound connection, and gives that up unless it answers before `end`.
    async fn add(&self, id: &RequestId, data: &JobData, end: Instant) -> Result<(), QueueError> {
        let sound = tokio::time::timeout_at(end, self.producer.sound(&self.jobs)).await;
        let lent = sound.map_err(|_late| no_answer(CALL_DEADLINE))??;
        let call = self.producer.call(&lent);
        let options = JobOptions {
            timestamp: Some(self.sources.clock.now().0),
            ..JobOptions::new().job_id(id.reveal())
        };
        let adding = lent.queue.add(NAME, data.to_json()).options(options);
        let added = tokio::time::timeout_at(end, adding).await;
        call.end(matches!(added, Ok(Ok(_))));
        added.map_err(|_late| no_answer(CALL_DEADLINE))??;
        Ok(())
    }

    async fn start_workers(
        &self,
        handler: &Handler,
        stop: &CancellationToken,
    ) -> Result<Workers, QueueError> {
        let processor = Processor {
            jobs: self.jobs.clone(),
            attempts: Attempts::new(self.limits.attempt_deadline, &self.sources),
            handler: Arc::clone(handler),
            limits: self.limits,
            telemetry: Arc::clone(&self.sources.telemetry),
            stop: stop.clone(),
        };
        let mut workers = Workers::new();
        let shares = crate_options::concurrencies(&self.target, self.limits.concurrency);
        for (number, concurrency) in shares.into_iter().enumerate() {
            let options = crate_options::worker(&self.connection, &self.prefix, &self.limits)
                .concurrency(concurrency)
                .name(format!("otpost-{number}"));
            let processor = processor.clone();
            let process = move |job, _cancelled| {
                let processor = processor.clone();
                async move { processor.process(job).await }
            };
            let starting = Worker::with_options(&self.name, process, options);
            workers.push(within(START_DEADLINE, starting).await?);
        }
        Ok(workers)
    }

    /// Workers until `stop`, others after each outage: by themselves those of the crate would come
    /// back up to 20 s later than Redis. What the old ones still run they end, or leave to the
    /// lease, and meanwhile they claim nothing.
    async fn keep_workers(
        &self,
        handler: &Handler,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        while !stop.is_cancelled() {
            let shift = stop.child_token();
            let _ends_with_this_turn = shift.clone().drop_guard();
            let workers = tokio::select! {
                () = stop.cancelled() => return,
                workers = self.start_when_redis_answers(handler, &shift) => workers,
            };
            for worker in workers.iter() {
                let telemetry = Arc::clone(&self.sources.telemetry);
                tasks.spawn(drain(Arc::clone(worker), telemetry));
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = outage(&self.jobs) => self.producer.give_up(&self.producer.current()),
            }
            let patience = self.limits.attempt_deadline;
            tasks.spawn(async move { workers.close(patience).await });
            while tasks.try_join_next().is_some() {}
        }
    }

    async fn start_when_redis_answers(
        &self,
        handler: &Handler,
        stop: &CancellationToken,
    ) -> Workers {
        let mut complaints = Complaints::new(&self.sources.telemetry);
        loop {
            let failure = match self.jobs.reach().await {
                Ok(()) => match self.start_workers(handler, stop).await {
                    Ok(workers) => return workers,
                    Err(error) => error,
                },
                Err(error) => error.into(),
            };
            complaints.tell(&failure);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn clean_again_and_again(&self) {
        let mut cleaning = tokio::time::interval(CLEANING_INTERVAL);
        cleaning.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            cleaning.tick().await;
            if let Err(error) = self.clean().await {
                self.sources.telemetry.part_failed("queue", &error);
            }
        }
    }
}

/// Returns once Redis does not answer. A failure between two questions is so short that the crate
/// is over it as soon.
async fn outage(jobs: &Jobs) {
    let mut asking = tokio::time::interval(WATCH);
    asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = true;
    while answers {
        asking.tick().await;
        let answer = tokio::time::timeout(FIRST_ANSWER, jobs.reach()).await;
        answers = matches!(answer, Ok(Ok(())));
    }
}

#[async_trait]
impl JobQueue for BullmqQueue {
    async fn enqueue(&self, id: &RequestId, data: &JobData) -> Result<(), EnqueueError> {
        let end = Instant::now() + CALL_DEADLINE;
        // Whatever silences our link has silenced the crate, too, which is longer in coming back.
        let current = self.producer.current();
        let call = self.producer.call(&current);
        let reserving = self.backlog.reserve(&self.jobs, self.limits.max_waiting);
        let reserved = tokio::time::timeout_at(end, reserving).await;
        call.end(matches!(reserved, Ok(Ok(_))));
        if !reserved.map_err(|_late| no_answer(CALL_DEADLINE))?? {
            return Err(EnqueueError::Full);
        }
        let soon = end.min(Instant::now() + FIRST_ANSWER);
        match self.add(id, data, soon).await {
            // The connection may have been lost unnoticed. While the queue knows the first one, the
            // same id is the same job.
            Err(_) if Instant::now() < end => Ok(self.add(id, data, end).await?),
            outcome => Ok(outcome?),
        }
    }

    async fn state(&self, id: &RequestId) -> Result<Option<JobState>, QueueError> {
        Ok(self.jobs.state(id.reveal()).await?)
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        Ok(self.jobs.counts().await?)
    }

    async fn ping(&self) -> Result<(), QueueError> {
        Ok(self.jobs.ping().await?)
    }

    async fn clean(&self) -> Result<(), QueueError> {
        let sound = tokio::time::timeout(CALL_DEADLINE, self.producer.sound(&self.jobs)).await;
        let queue = sound.map_err(|_late| no_answer(CALL_DEADLINE))??.queue;
        let kept = [
            ("completed", self.limits.keep_completed),
            ("failed", self.limits.keep_failed),
        ];
        for (state, span) in kept {
            let mut removed = CLEANED_AT_ONCE as usize;
            while removed >= CLEANED_AT_ONCE as usize {
                let cleaning = queue.clean(millis(span), CLEANED_AT_ONCE, state);
                removed = within(CALL_DEADLINE, cleaning).await?.len();
            }
        }
        Ok(())
    }

    async fn work(&self, handler: Handler, stop: CancellationToken) -> Result<(), QueueError> {
        // If this future is dropped, so are the workers that close, which closes them at once.
        let mut tasks = JoinSet::new();
        tokio::select! {
            () = self.keep_workers(&handler, &stop, &mut tasks) => {}
            // What is not cleaned before the stop is cleaned after the next start.
            () = self.clean_again_and_again() => {}
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, bullmq::Error>>,
) -> Result<T, QueueError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(no_answer(deadline)),
    }
}

fn no_answer(deadline: Duration) -> QueueError {
    QueueError::Unavailable(format!("no answer within {deadline:?}"))
}

/// A text of the crate without what may be an id, an address or a job's data.
fn masked(text: &str) -> String {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| {
            if word.contains(['@', '"']) {
                "***".to_owned()
            } else if word.len() > 20 {
                mask(word)
            } else {
                word.to_owned()
            }
        })
        .collect();
    words.join(" ")
}

impl From<bullmq::Error> for QueueError {
    fn from(error: bullmq::Error) -> Self {
        Self::Unavailable(masked(&error.to_string()))
    }
}

impl From<LinkError> for QueueError {
    fn from(error: LinkError) -> Self {
        Self::Unavailable(masked(&error.to_string()))
    }
}

impl From<LinkError> for EnqueueError {
    fn from(error: LinkError) -> Self {
        Self::Queue(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses_are_masked_in_what_the_crate_says() {
        let id = "rabcdefghijklmnopqrstuvwxyz2";
        let text = format!("Missing lock for job {id}. \"x\" ada@example.org moveToFinished");
        let masked = masked(&text);
        assert!(
            !masked.contains(id) && !masked.contains("ada") && !masked.contains("example"),
            "{masked}"
        );
        assert!(masked.starts_with("Missing lock for job rabcd***"));
    }
}
