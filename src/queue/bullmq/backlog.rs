//! How many jobs wait, known well enough to bound them without a question for each one added.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::jobs::Jobs;
use crate::redis_link::LinkError;

/// How long a count is believed; own jobs since then are added to it. The limit may be overshot by
/// what other processes add in this time, and by own jobs that were on their way at the count.
const LIFE: Duration = Duration::from_millis(100);
/// How long a count is believed that leaves no room.
const FULL_LIFE: Duration = Duration::from_millis(10);

/// The last count, and what was added since.
#[derive(Default)]
pub struct Backlog(Mutex<Known>);

#[derive(Clone, Copy, Default)]
struct Known {
    at: Option<Instant>,
    counted: u64,
    added: u64,
}

impl Backlog {
    /// Takes a place for one more job if fewer than `most` wait. Whoever finds the last count too
    /// old counts anew; the others go by the old one meanwhile. A place that is not used is given
    /// back by the next count.
    pub async fn reserve(&self, jobs: &Jobs, most: u64) -> Result<bool, LinkError> {
        let now = Instant::now();
        let before = {
            let mut known = self.lock();
            let life = if known.waiting() < most {
                LIFE
            } else {
                FULL_LIFE
            };
            if known.at.is_some_and(|at| now.duration_since(at) < life) {
                return Ok(known.take(most));
            }
            if known.at.is_some() {
                known.at = Some(now);
            }
            *known
        };
        let counts = jobs.counts().await?;
        let mut known = self.lock();
        known.at = Some(now);
        known.counted = counts.waiting.saturating_add(counts.delayed);
        // What was added while the count was under way may count twice, but not be missed.
        known.added = known.added.saturating_sub(before.added);
        Ok(known.take(most))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn waiting(&self) -> u64 {
        self.counted.saturating_add(self.added)
    }

    fn take(&mut self, most: u64) -> bool {
        let has_room = self.waiting() < most;
        self.added += u64::from(has_room);
        has_room
    }
}
