//! The crate's queue, replaced after a failure: left alone, its connection would come back up to
//! 5 s after Redis does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bullmq::{Queue, QueueOptions};

use super::jobs::Jobs;
use super::{START_DEADLINE, within};
use crate::queue::QueueError;

/// Lends the crate's queue.
pub struct Producer {
    name: String,
    options: QueueOptions,
    current: Mutex<Lent>,
    /// The newest generation that failed.
    failed: AtomicU64,
    is_renewing: AtomicBool,
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
            is_renewing: AtomicBool::new(false),
        })
    }

    /// The queue as it is, whether it works or not.
    pub fn current(&self) -> Lent {
        self.lock().clone()
    }

    /// A queue that has not failed, connected anew if need be, as soon as `jobs` can be asked.
    pub async fn sound(&self, jobs: &Jobs) -> Result<Lent, QueueError> {
        let current = self.current();
        if self.failed.load(Ordering::Acquire) < current.generation {
            return Ok(current);
        }
        if self.is_renewing.swap(true, Ordering::AcqRel) {
            return Err(QueueError::Unavailable("it is connecting again".to_owned()));
        }
        let _busy = Busy(&self.is_renewing);
        jobs.ping().await?;
        let building = Queue::with_options(&self.name, self.options.clone());
        let next = Lent {
            queue: within(START_DEADLINE, building).await?,
            generation: current.generation + 1,
        };
        *self.lock() = next.clone();
        Ok(next)
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

struct Busy<'a>(&'a AtomicBool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
