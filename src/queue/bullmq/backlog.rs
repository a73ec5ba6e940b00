//! How many jobs wait, known well enough to bound them without a question for each one added.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::jobs::Jobs;
use crate::redis_link::LinkError;

/// How long a count is believed; own jobs since then are added to it. Other processes may
/// overshoot the limit by what they add in this time.
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
    /// Whether `most` jobs wait, or more. Whoever finds the last count too old counts anew; the
    /// others go by the old one meanwhile.
    pub async fn is_full(&self, jobs: &Jobs, most: u64) -> Result<bool, LinkError> {
        let now = Instant::now();
        let before = {
            let mut known = self.lock();
            let waiting = known.counted.saturating_add(known.added);
            let life = if waiting < most { LIFE } else { FULL_LIFE };
            if known.at.is_some_and(|at| now.duration_since(at) < life) {
                return Ok(waiting >= most);
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
        Ok(known.counted >= most)
    }

    /// A job was added.
    pub fn add(&self) {
        self.lock().added += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
