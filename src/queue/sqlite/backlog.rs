//! What waits, in memory: which jobs are ready, which wait for their time, which run. The table
//! says what they are; this says whose turn it is, so that nobody has to look into the table.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::table::StoredJob;

/// So many ready jobs are kept whole, some 5 MB; of further ones the place in line only.
const HELD: usize = 10_000;

/// The jobs that this process has to run.
pub struct Backlog {
    jobs: Mutex<Jobs>,
    changed: Notify,
    most: u64,
}

#[derive(Default)]
struct Jobs {
    ready: VecDeque<Entry>,
    delayed: BinaryHeap<Reverse<(Instant, i64)>>,
    active: HashSet<String>,
    reserved: u64,
    held: usize,
}

/// A job whose turn it is.
pub struct Entry {
    /// Its place in line.
    pub sequence: i64,
    /// The job, unless it is to be read from the table.
    pub job: Option<StoredJob>,
}

/// How many jobs wait, wait for their time and run.
pub struct Depth {
    /// Wait to run now.
    pub ready: u64,
    /// Wait for their time.
    pub delayed: u64,
    /// Run.
    pub active: u64,
}

/// A place in the backlog for a job that is being written; given back unless filled.
pub struct Reservation {
    backlog: Arc<Backlog>,
}

/// A claimed job; it is ready again unless it was settled, whatever ended its attempt.
pub struct Claim {
    backlog: Arc<Backlog>,
    sequence: i64,
    id: Option<String>,
    settled: bool,
}

impl Backlog {
    /// A backlog in which at most `most` jobs wait.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self {
            jobs: Mutex::default(),
            changed: Notify::new(),
            most,
        })
    }

    /// Takes a place for one more job, or nothing if the backlog is full.
    pub fn reserve(self: &Arc<Self>) -> Option<Reservation> {
        let mut jobs = self.lock();
        let waiting = count(jobs.ready.len()) + count(jobs.delayed.len()) + jobs.reserved;
        if waiting >= self.most {
            return None;
        }
        jobs.reserved += 1;
        Some(Reservation {
            backlog: Arc::clone(self),
        })
    }

    /// Lets a job wait until `at`.
    pub fn delay(&self, sequence: i64, at: Instant) {
        self.lock().delayed.push(Reverse((at, sequence)));
        self.changed.notify_one();
    }

    /// Lets a job be run as soon as its turn has come.
    pub fn ready(&self, sequence: i64, job: Option<StoredJob>) {
        self.lock().push(Entry { sequence, job });
        self.changed.notify_one();
    }

    /// The next job whose turn it is. Nothing is lost if the wait is given up.
    pub async fn next(self: &Arc<Self>) -> (Claim, Option<StoredJob>) {
        loop {
            let due = {
                let mut jobs = self.lock();
                jobs.promote();
                if let Some(entry) = jobs.pop() {
                    return (self.claim(entry.sequence), entry.job);
                }
                jobs.delayed.peek().map(|Reverse((at, _))| *at)
            };
            match due {
                Some(at) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Whether an attempt at the job of this id runs.
    pub fn is_active(&self, id: &str) -> bool {
        self.lock().active.contains(id)
    }

    /// How many jobs stand where.
    pub fn depth(&self) -> Depth {
        let mut jobs = self.lock();
        jobs.promote();
        Depth {
            ready: count(jobs.ready.len()),
            delayed: count(jobs.delayed.len()),
            active: count(jobs.active.len()),
        }
    }

    fn claim(self: &Arc<Self>, sequence: i64) -> Claim {
        Claim {
            backlog: Arc::clone(self),
            sequence,
            id: None,
            settled: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // Nothing that holds the lock can panic half-way.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    fn push(&mut self, mut entry: Entry) {
        if self.held >= HELD {
            entry.job = None;
        }
        self.held += usize::from(entry.job.is_some());
        self.ready.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.ready.pop_front()?;
        self.held -= usize::from(entry.job.is_some());
        Some(entry)
    }

    fn promote(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, sequence))) = self.delayed.peek().copied()
            && at <= now
        {
            self.delayed.pop();
            self.push(Entry {
                sequence,
                job: None,
            });
        }
    }
}

impl Reservation {
    /// Fills the place with the job that was written.
    pub fn fill(self, sequence: i64, job: StoredJob) {
        self.backlog.ready(sequence, Some(job));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.backlog.lock().reserved -= 1;
    }
}

impl Claim {
    /// The job's place in line.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Notes that an attempt at the job of this id runs, until the claim ends.
    pub fn begin(&mut self, id: &str) {
        self.backlog.lock().active.insert(id.to_owned());
        self.id = Some(id.to_owned());
    }

    /// Ends the claim of a job that has come to its end.
    pub fn settle(mut self) {
        self.settled = true;
    }

    /// Ends the claim of a job that waits until `at`.
    pub fn settle_until(mut self, at: Instant) {
        self.settled = true;
        self.backlog.delay(self.sequence, at);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.backlog.lock().active.remove(id);
        }
        if !self.settled {
            self.backlog.ready(self.sequence, None);
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(id: &str) -> StoredJob {
        StoredJob {
            id: id.to_owned(),
            data: String::new(),
            requested_at: crate::otp::clock::UnixMillis(0),
            attempts: 0,
        }
    }

    #[tokio::test]
    async fn a_reservation_counts_until_it_is_given_back() {
        let backlog = Backlog::new(1);
        let place = backlog.reserve().unwrap();
        assert!(backlog.reserve().is_none());
        drop(place);
        backlog.reserve().unwrap().fill(1, job("a"));
        assert!(backlog.reserve().is_none());
        let (claim, _) = backlog.next().await;
        claim.settle();
        assert!(backlog.reserve().is_some());
    }

    #[tokio::test]
    async fn a_claim_that_is_dropped_is_ready_again() {
        let backlog = Backlog::new(9);
        backlog.ready(7, Some(job("a")));
        let (mut claim, held) = backlog.next().await;
        claim.begin("a");
        assert!(held.is_some() && backlog.is_active("a"));
        drop(claim);
        assert!(!backlog.is_active("a"));
        let (again, held) = backlog.next().await;
        assert_eq!(again.sequence(), 7);
        assert!(held.is_none(), "it is read again");
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_jobs_come_in_the_order_of_their_times_and_not_before() {
        let backlog = Backlog::new(9);
        let start = Instant::now();
        backlog.delay(1, start + Duration::from_secs(9));
        backlog.delay(2, start + Duration::from_secs(3));
        assert_eq!(backlog.depth().delayed, 2);
        let (first, _) = backlog.next().await;
        assert_eq!((first.sequence(), start.elapsed().as_secs()), (2, 3));
        let (second, _) = backlog.next().await;
        assert_eq!((second.sequence(), start.elapsed().as_secs()), (1, 9));
        first.settle();
        second.settle();
    }

    #[tokio::test]
    async fn beyond_a_number_jobs_are_not_held_in_memory() {
        let backlog = Backlog::new(u64::MAX);
        for sequence in 0..=10_000 {
            backlog.ready(sequence, Some(job("a")));
        }
        let (last, held) = {
            let mut jobs = backlog.lock();
            let last = jobs.ready.pop_back().unwrap();
            (last.job.is_some(), jobs.held)
        };
        assert_eq!((last, held), (false, HELD));
    }
}
