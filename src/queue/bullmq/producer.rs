//! The crate's queue, replaced after a failure: left alone, its connection would come back up to
//! 5 s after Redis does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bullmq::{Queue, QueueOptions};
use tokio::time::Instant;

use super::jobs::Jobs;
use super::{START_DEADLINE, within};
use crate::queue::QueueError;

/// Longer than a connection takes to be made once Redis answers.
const RENEWAL: Duration = Duration::from_millis(500);

/// Lends the crate's queue.
pub struct Producer {
    name: String,
    options: QueueOptions,
    current: Mutex<Lent>,
    /// The newest generation that failed.
    failed: AtomicU64,
    /// Held by the caller that connects anew.
    renewing: tokio::sync::Mutex<()>,
}

/// A call that is under way.
pub struct Call<'a> {
    producer: &'a Producer,
    lent: &'a Lent,
    begun: Instant,
    has_ended: bool,
}

/// The crate's queue, and the how-manieth it is.
#[derive(Clone)]
pub struct Lent {
    /// The queue.
    pub queue: Queue,
    generation: u64,
}

impl Producer {
    /// Connects.
    pub async fn connect(name: &str, options: QueueOptions) -> Result<Self, QueueError> {
        let queue = within(START_DEADLINE, Queue::with_options(name, options.clone())).await?;
        Ok(Self {
            name: name.to_owned(),
            options,
            current: Mutex::new(Lent {
                queue,
                generation: 1,
            }),
            failed: AtomicU64::new(0),
            renewing: tokio::sync::Mutex::new(()),
        })
    }

    /// The queue as it is, whether it works or not.
    pub fn current(&self) -> Lent {
        self.lock().clone()
    }

    /// A queue that has not failed, connected anew if need be, as soon as `jobs` can be asked.
    pub async fn sound(&self, jobs: &Jobs) -> Result<Lent, QueueError> {
        if let Some(sound) = self.unfailed() {
            return Ok(sound);
        }
        // All callers share the new connection. Held over the wait, since they wait for just that.
        let Ok(_turn) = tokio::time::timeout(RENEWAL, self.renewing.lock()).await else {
            return Err(QueueError::Unavailable("it is connecting again".to_owned()));
        };
        if let Some(sound) = self.unfailed() {
            return Ok(sound);
        }
        jobs.reach().await?;
        let building = Queue::with_options(&self.name, self.options.clone());
        let queue = within(START_DEADLINE, building).await?;
        let mut current = self.lock();
        *current = Lent {
            queue,
            generation: current.generation + 1,
        };
        Ok(current.clone())
    }

    fn unfailed(&self) -> Option<Lent> {
        let current = self.current();
        (self.failed.load(Ordering::Acquire) < current.generation).then_some(current)
    }

    /// Watches over a call on `lent`.
    pub fn call<'a>(&'a self, lent: &'a Lent) -> Call<'a> {
        Call {
            producer: self,
            lent,
            begun: Instant::now(),
            has_ended: false,
        }
    }

    /// Notes that a call on `lent` failed.
    pub fn give_up(&self, lent: &Lent) {
        self.failed.fetch_max(lent.generation, Ordering::AcqRel);
    }

    fn lock(&self) -> MutexGuard<'_, Lent> {
        // Nothing that holds the lock can panic half-way.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call<'_> {
    /// Gives the queue up if it did not work.
    pub fn end(mut self, has_worked: bool) {
        self.has_ended = true;
        if !has_worked {
            self.producer.give_up(self.lent);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // Whoever asked has gone. Only a long wait was the queue's fault.
        if !self.has_ended && self.begun.elapsed() >= RENEWAL {
            self.producer.give_up(self.lent);
        }
    }
}
