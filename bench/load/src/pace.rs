//! Decides when a request is due. In the open loop the instants are fixed before the run and do
//! not move when the target is slow; in the closed loop a request is due when its connection is
//! free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// How requests are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// So many requests a second, whatever the answers do.
    Open {
        /// Requests per second.
        rate: u32,
    },
    /// Each connection sends its next request when it has the answer to the last.
    Closed,
}

/// The right to send one request.
#[derive(Debug)]
pub struct Ticket {
    /// Counts from 0; each is given once.
    pub index: u32,
    /// When the request is due: latencies are measured from here.
    pub scheduled: Instant,
}

/// Gives out tickets to all connections of a run.
#[derive(Debug)]
pub struct Tickets {
    pace: Pace,
    started: Instant,
    /// No ticket is given after this instant.
    cutoff: Instant,
    most: u32,
    next: AtomicU32,
    due: Semaphore,
}

impl Tickets {
    /// Starts the schedule now: `length` long, at most `most` tickets. An open loop that has fallen
    /// behind may use `overrun` more to send what was due.
    pub fn start(
        pace: Pace,
        length: Duration,
        overrun: Duration,
        most: u32,
        connections: u32,
    ) -> std::io::Result<Arc<Tickets>> {
        let started = Instant::now();
        let cutoff = match pace {
            Pace::Open { .. } => started + length + overrun,
            Pace::Closed => started + length,
        };
        let most = planned(pace, length, most);
        let (next, due) = (AtomicU32::new(0), Semaphore::new(0));
        let tickets = Arc::new(Tickets {
            pace,
            started,
            cutoff,
            most,
            next,
            due,
        });
        if let Pace::Open { rate } = pace {
            spawn_pacer(&tickets, rate, connections)?;
        }
        Ok(tickets)
    }

    /// The next ticket, once it is due; none when the run is over.
    pub async fn next(&self) -> Option<Ticket> {
        if let Pace::Open { .. } = self.pace {
            let due = tokio::time::timeout_at(self.cutoff.into(), self.due.acquire());
            due.await.ok()?.ok()?.forget();
        }
        let now = Instant::now();
        if now >= self.cutoff {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let scheduled = match self.pace {
            Pace::Open { rate } => self.started + offset(index, rate),
            Pace::Closed => now,
        };
        (index < self.most).then_some(Ticket { index, scheduled })
    }

    /// When the first ticket was due.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Tickets of an open loop that were due and never sent.
    pub fn unsent(&self) -> u32 {
        match self.pace {
            Pace::Open { .. } => self.most.saturating_sub(self.next.load(Ordering::Relaxed)),
            Pace::Closed => 0,
        }
    }
}

/// How many tickets a run has at most.
pub fn planned(pace: Pace, length: Duration, most: u32) -> u32 {
    match pace {
        Pace::Open { rate } => {
            let seconds = u32::try_from(length.as_secs()).unwrap_or(u32::MAX);
            rate.saturating_mul(seconds).min(most)
        }
        Pace::Closed => most,
    }
}

fn offset(index: u32, rate: u32) -> Duration {
    Duration::from_nanos(u64::from(index) * 1_000_000_000 / u64::from(rate.max(1)))
}

/// The pacer has a thread of its own, since the runtime's timers only tick every millisecond. It
/// ends by itself when the run is dropped.
fn spawn_pacer(tickets: &Arc<Tickets>, rate: u32, connections: u32) -> std::io::Result<()> {
    let (started, most, weak) = (tickets.started, tickets.most, Arc::downgrade(tickets));
    let pacer = move || {
        for index in 0..most {
            sleep_until(started + offset(index, rate));
            let Some(tickets) = weak.upgrade() else {
                return;
            };
            tickets.due.add_permits(1);
        }
        if let Some(tickets) = weak.upgrade() {
            // One more for each connection, so that each wakes and finds the run over.
            tickets.due.add_permits(connections as usize);
        }
    };
    std::thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(pacer)
        .map(drop)
}

#[expect(clippy::disallowed_methods, reason = "this thread exists to sleep")]
fn sleep_until(instant: Instant) {
    let left = instant.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn open_tickets_keep_their_instants_when_they_are_taken_late() {
        let pace = Pace::Open { rate: 1000 };
        let tickets = Tickets::start(pace, SECOND, 10 * SECOND, 5, 1).unwrap();
        let mut offsets = Vec::new();
        while let Some(ticket) = tickets.next().await {
            assert!(Instant::now() >= ticket.scheduled);
            offsets.push((ticket.scheduled - tickets.started()).as_millis());
        }
        assert_eq!(offsets, [0, 1, 2, 3, 4]);
        assert_eq!(tickets.unsent(), 0);
    }

    #[tokio::test]
    async fn closed_tickets_end_with_their_count() {
        let tickets = Tickets::start(Pace::Closed, 60 * SECOND, SECOND, 2, 1).unwrap();
        assert!(tickets.next().await.is_some());
        assert!(tickets.next().await.is_some());
        assert!(tickets.next().await.is_none());
    }
}
