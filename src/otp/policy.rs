//! The numbers that rule codes and retries. What they decide about one challenge is in `record`.

use std::time::Duration;

use super::clock::millis;

/// How a code is made, how long it lives, what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Digits of a normal code, 6 to 8.
    pub digits: u8,
    /// How long a code lives from its making; at most 10 minutes (ASVS 6.5.5, S-02).
    pub lifetime: Duration,
    /// Wrong attempts after which all live codes of a challenge are dead (S-07).
    pub attempts: u32,
    /// What a further request does to a live code.
    pub resend: Resend,
}

/// What a further request does to a live code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    /// It mails the same code again; no request ends a mailed code (S-09).
    Keep,
    /// It makes a new code, and only the newest request's code counts.
    Rotate,
}

/// The most codes of one challenge that are alive at once.
pub const LIVE_CODES: usize = 2;
/// A retry gets the code that the same job made only while this much of it is left.
pub const RETRY_MARGIN: Duration = Duration::from_secs(60);
/// A job requested more than this before a success mails nothing any more. Requests that cross the
/// success on their way are not meant by it.
pub const SUPERSEDE_MARGIN: Duration = Duration::from_secs(5);

/// The longest wait between two attempts at a job.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How long a job waits after its `attempt`-th attempt (from 1): evenly spread up to twice 1 s,
/// 2 s, 4 s ..., never more than 60 s. `chance` is a random number.
pub fn backoff(attempt: u32, chance: u64) -> Duration {
    let ceiling = 2_000_u64
        .saturating_mul(
            1_u64
                .checked_shl(attempt.saturating_sub(1))
                .unwrap_or(u64::MAX),
        )
        .min(millis(LONGEST_BACKOFF));
    Duration::from_millis(chance % (ceiling + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mean_wait_doubles_until_half_a_minute() {
        let longest = |attempt| {
            (0..=60_000)
                .map(|chance| backoff(attempt, chance))
                .max()
                .unwrap_or_default()
                .as_secs()
        };
        let waits: Vec<u64> = (1..=8).map(longest).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_a_minute(attempt: u32, chance: u64) {
            prop_assert!(backoff(attempt, chance) <= Duration::from_secs(60));
        }
    }
}
