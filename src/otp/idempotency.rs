//! Requests that a client may repeat: it marks them with a key of its own (`Idempotency-Key`), and
//! a store remembers what came of them. Of the key and of what a request said a store has HMACs.

use std::time::Duration;

use super::address::{ChallengeId, EmailAddress, LimitId};
use super::clock::UnixMillis;
use super::keys::KeyRing;
use super::policy::CLOCK_STEP;

/// How long it is remembered what came of a request for a code.
pub const REQUEST_REPLAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a request may be under way, longer than all deadlines of the API together. Then nobody
/// works on it any more, whatever became of it.
pub const IN_FLIGHT: Duration = Duration::from_secs(12);

/// The key of one caller for one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyId(pub [u8; 16]);

impl IdempotencyId {
    /// `HMAC-SHA-256(K_addr, "idempotency" || L || key || 0x00 || caller)`, 128 bits. A key has no
    /// control characters.
    pub fn of(keys: &KeyRing, caller: &[u8], limit: LimitId, key: &str) -> Self {
        Self(keys.name(&[b"idempotency", &limit.0, key.as_bytes(), &[0], caller]))
    }
}

/// What a request for a code said: two with the same are the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// `HMAC-SHA-256(K_addr, "request" || recipient || 0x00 || locale || 0x00 || challenge)`, 128
    /// bits. The challenge stands for the context.
    pub fn of(
        keys: &KeyRing,
        address: &EmailAddress,
        locale: Option<&str>,
        challenge: ChallengeId,
    ) -> Self {
        Self(keys.name(&[
            b"request",
            address.recipient().as_bytes(),
            &[0],
            locale.unwrap_or_default().as_bytes(),
            &[0],
            &challenge.0,
        ]))
    }
}

/// A request for a code that its client may repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeatable {
    /// The client's key.
    pub key: IdempotencyId,
    /// What the request says.
    pub fingerprint: Fingerprint,
    /// The id that the request has if it is no repetition.
    pub id: String,
}

/// What is known of a request that is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It was accepted under this id.
    Accepted {
        /// The id of the request and of its job.
        id: String,
    },
    /// Nobody knows whether its job is on the queue: it is to be added again, under the same id.
    Unfinished {
        /// The id of the request and of its job.
        id: String,
    },
    /// It may still be under way.
    InFlight {
        /// When it is not any more.
        retry_after: Duration,
    },
    /// The key belongs to a request that said something else.
    OtherRequest,
}

/// What a store remembers of a request under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What it said.
    pub fingerprint: Fingerprint,
    /// Its id.
    pub id: String,
    /// When somebody last began to put its job onto the queue.
    pub tried_at: UnixMillis,
    /// Until when it is remembered; this never moves.
    pub ends_at: UnixMillis,
    /// Whether its job is known to be on the queue.
    pub is_enqueued: bool,
}

impl Remembered {
    /// What is to be remembered of a request that was admitted now.
    pub fn new(request: &Repeatable, now: UnixMillis) -> Self {
        Self {
            fingerprint: request.fingerprint,
            id: request.id.clone(),
            tried_at: now,
            ends_at: now.after(REQUEST_REPLAY),
            is_enqueued: false,
        }
    }

    /// Decides what a repetition gets. Whoever is told that the request is unfinished has it: for a
    /// while others are told that it is in flight.
    pub fn repeat(&mut self, request: &Repeatable, now: UnixMillis) -> Repetition {
        if self.fingerprint != request.fingerprint {
            return Repetition::OtherRequest;
        }
        let id = self.id.clone();
        if self.is_enqueued {
            return Repetition::Accepted { id };
        }
        let quiet_at = self.tried_at.after(IN_FLIGHT);
        // Whoever tried under a wrong clock has done so by now.
        if now < quiet_at && self.tried_at <= now.after(CLOCK_STEP) {
            let retry_after = quiet_at.since(now);
            return Repetition::InFlight { retry_after };
        }
        self.tried_at = now;
        Repetition::Unfinished { id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMillis = UnixMillis(1_790_000_000_000);
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn repeatable(fingerprint: u8) -> Repeatable {
        Repeatable {
            key: IdempotencyId([1; 16]),
            fingerprint: Fingerprint([fingerprint; 16]),
            id: "second".to_owned(),
        }
    }

    /// What is remembered of a first request, admitted at the start.
    fn remembered() -> Remembered {
        let first = Repeatable {
            id: "first".to_owned(),
            ..repeatable(7)
        };
        Remembered::new(&first, START)
    }

    fn first() -> String {
        "first".to_owned()
    }

    #[test]
    fn a_request_is_remembered_for_a_day() {
        assert_eq!(
            remembered().ends_at,
            START.after(24 * Duration::from_secs(3_600))
        );
    }

    #[test]
    fn a_request_that_is_on_the_queue_is_accepted_again() {
        let mut remembered = remembered();
        remembered.is_enqueued = true;
        let again = remembered.repeat(&repeatable(7), START);
        assert_eq!(again, Repetition::Accepted { id: first() });
    }

    #[test]
    fn what_said_something_else_is_another_request_wherever_the_first_one_is() {
        for is_enqueued in [false, true] {
            let mut remembered = remembered();
            remembered.is_enqueued = is_enqueued;
            let other = remembered.repeat(&repeatable(8), START.after(IN_FLIGHT));
            assert_eq!(other, Repetition::OtherRequest);
        }
    }

    #[test]
    fn a_request_is_in_flight_for_twelve_seconds_and_then_somebody_elses_to_finish() {
        let (mut remembered, again) = (remembered(), repeatable(7));
        let [last, span] = [11_999, 12_000].map(Duration::from_millis);
        for begin in [START, START.after(span)] {
            for (gone, retry_after) in [(Duration::ZERO, span), (last, MILLISECOND)] {
                let in_flight = Repetition::InFlight { retry_after };
                assert_eq!(remembered.repeat(&again, begin.after(gone)), in_flight);
            }
            let unfinished = Repetition::Unfinished { id: first() };
            assert_eq!(remembered.repeat(&again, begin.after(span)), unfinished);
        }
    }

    #[test]
    fn what_only_a_wrong_clock_has_shown_is_no_longer_in_flight() {
        let again = repeatable(7);
        let shown = |ahead: Duration| {
            let mut remembered = remembered();
            remembered.tried_at = START.after(ahead);
            remembered.repeat(&again, START)
        };
        let retry_after = CLOCK_STEP + IN_FLIGHT;
        assert_eq!(shown(CLOCK_STEP), Repetition::InFlight { retry_after });
        let unfinished = Repetition::Unfinished { id: first() };
        assert_eq!(shown(CLOCK_STEP + MILLISECOND), unfinished);
    }
}
