//! The numbers that rule codes and retries. What they decide about one challenge is in `record`.

use std::time::Duration;

use super::clock::millis;

/// How a code is made, how long it lives, what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Digits of a normal code, 6 to 8.
    pub digits: u8,
    /// How long a code lives from its making; at most 10 minutes (ASVS 5.0.0, 6.5.5).
    pub lifetime: Duration,
    /// Wrong attempts after which all live codes of a challenge are dead.
    pub attempts: u32,
    /// What a further request does to a live code.
    pub resend: Resend,
    /// What one mailbox may spend; nothing is counted without them.
    pub limits: Option<AddressLimits>,
    /// What one client may do; it is counted only where mailboxes are.
    pub client_limits: Option<ClientLimits>,
    /// What happens when a mailbox has spent its failures.
    pub step_up: StepUp,
}

/// What a further request does to a live code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    /// It mails the same code again; no request ends a mailed code.
    Keep,
    /// It makes a new code, and only the newest request's code counts.
    Rotate,
}

/// What one mailbox may spend, all its spellings and contexts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// Least time between two mails for the same context.
    pub cooldown: Duration,
    /// Mails an hour.
    pub per_hour: u32,
    /// Mails a day.
    pub per_day: u32,
    /// Wrong codes an hour.
    pub failures_per_hour: u32,
    /// Wrong codes a day.
    pub failures_per_day: u32,
    /// Wrong codes in 30 days.
    pub failures_per_month: u32,
}

/// What one client may do, an IPv4 address or an IPv6 /64; the networks around a /64 may do a multiple
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Requests for a code in ten minutes.
    pub generate_per_10m: u32,
    /// Requests for a code an hour.
    pub generate_per_hour: u32,
    /// Different addresses an hour that codes are requested for.
    pub distinct_addresses_per_hour: u32,
    /// Wrong codes an hour.
    pub verify_failures_per_hour: u32,
}

/// What happens when a mailbox has spent its failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepUp {
    /// Codes of 8 digits with a budget of their own: nobody is locked out.
    Digits8,
    /// No codes until the budget recovers.
    Block,
}

/// A window of the budgets of clients.
pub const TEN_MINUTES: Duration = Duration::from_secs(10 * 60);
/// A window of the budgets.
pub const HOUR: Duration = Duration::from_secs(60 * 60);
/// A window of the budgets, and the one of stepped-up codes.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest window of the budgets: 30 days.
pub const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Wrong codes a day against stepped-up codes of one mailbox.
pub const STEPPED_FAILURES_PER_DAY: u32 = 12;
/// Wrong codes a day that one client network can spend of a mailbox's, so that no single one
/// steps up an address of others.
pub const FAILURES_PER_CLIENT_PER_DAY: u32 = 5;
/// The length of a stepped-up code.
pub const STEPPED_DIGITS: u8 = 8;

/// The most codes of one challenge that are alive at once.
pub const LIVE_CODES: usize = 2;
/// A retry gets the code that the same job made only while this much of it is left.
pub const RETRY_MARGIN: Duration = Duration::from_secs(60);
/// What was made further in the future than this was made while the clock was wrong: it is over, so that
/// a clock that jumps ahead and back gives no code a longer life.
pub const CLOCK_STEP: Duration = Duration::from_secs(60);
/// A job requested more than this before a success mails nothing any more. Requests that cross the
/// success on their way are not meant by it.
pub const SUPERSEDE_MARGIN: Duration = Duration::from_secs(5);

/// Windows of each length that a year touches: 365 days, and what is begun counts in full.
const HOURS_IN_A_YEAR: u64 = 365 * 24 + 1;
const DAYS_IN_A_YEAR: u64 = 366;
const MONTHS_IN_A_YEAR: u64 = 13;

impl Policy {
    /// What one client may do, if that is limited.
    pub fn limits_of_clients(&self) -> Option<ClientLimits> {
        self.limits.and(self.client_limits)
    }

    /// The most guesses at normal codes of one mailbox that are compared in a year; `None` if
    /// nothing bounds them.
    pub fn yearly_guesses(&self) -> Option<u64> {
        let limits = self.limits?;
        let most = [
            u64::from(limits.failures_per_hour) * HOURS_IN_A_YEAR,
            u64::from(limits.failures_per_day) * DAYS_IN_A_YEAR,
            u64::from(limits.failures_per_month) * MONTHS_IN_A_YEAR,
        ];
        most.into_iter().min()
    }

    /// The most guesses at stepped-up codes of one mailbox that are compared in a year; `None` if
    /// nothing bounds them.
    pub fn yearly_stepped_guesses(&self) -> Option<u64> {
        self.limits?;
        Some(match self.step_up {
            StepUp::Digits8 => u64::from(STEPPED_FAILURES_PER_DAY) * DAYS_IN_A_YEAR,
            StepUp::Block => 0,
        })
    }

    /// What bounds the probability that somebody guesses a code of one mailbox within a year,
    /// with two live codes all the time; 1 if no limit holds.
    pub fn yearly_guess_bound(&self) -> f64 {
        let (Some(normal), Some(stepped)) = (self.yearly_guesses(), self.yearly_stepped_guesses())
        else {
            return 1.0;
        };
        let live = u8::try_from(LIVE_CODES).unwrap_or(u8::MAX);
        let hit = |guesses: u64, digits| count(guesses) * guess_mass(live, digits);
        (hit(normal, self.digits) + hit(stepped, STEPPED_DIGITS)).min(1.0)
    }
}

/// The probability that one guess meets one of `live` codes of so many digits.
pub fn guess_mass(live: u8, digits: u8) -> f64 {
    f64::from(live) / 10_f64.powi(i32::from(digits))
}

/// Beyond 4 thousand million guesses the bound is 1 in any case.
fn count(guesses: u64) -> f64 {
    f64::from(u32::try_from(guesses).unwrap_or(u32::MAX))
}

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

    const POLICY: Policy = Policy {
        digits: 6,
        lifetime: Duration::from_secs(600),
        attempts: 5,
        resend: Resend::Keep,
        limits: Some(AddressLimits {
            cooldown: Duration::from_secs(30),
            per_hour: 5,
            per_day: 15,
            failures_per_hour: 10,
            failures_per_day: 15,
            failures_per_month: 35,
        }),
        client_limits: None,
        step_up: StepUp::Digits8,
    };

    fn is_near(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() < 1e-12
    }

    #[test]
    fn an_address_is_guessed_with_less_than_a_thousandth_a_year() {
        assert_eq!(POLICY.yearly_guesses(), Some(455));
        assert_eq!(POLICY.yearly_stepped_guesses(), Some(4_392));
        let bound = POLICY.yearly_guess_bound();
        assert!(is_near(bound, 455.0 * 2e-6 + 4_392.0 * 2e-8), "{bound}");
        assert!(bound < 0.001, "{bound}");
    }

    #[test]
    fn the_bound_follows_the_settings() {
        let bound = |policy: Policy| policy.yearly_guess_bound();
        let block = Policy {
            step_up: StepUp::Block,
            ..POLICY
        };
        assert!(is_near(bound(block), 455.0 * 2e-6));
        let longer = Policy {
            digits: 8,
            ..POLICY
        };
        assert!(is_near(bound(longer), (455.0 + 4_392.0) * 2e-8));
        let limits = POLICY.limits.map(|limits| AddressLimits {
            failures_per_month: 1_000_000,
            ..limits
        });
        let by_the_day = Policy { limits, ..POLICY };
        assert_eq!(by_the_day.yearly_guesses(), Some(15 * 366));
        let unlimited = Policy {
            limits: None,
            ..POLICY
        };
        assert!(is_near(bound(unlimited), 1.0));
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_a_minute(attempt: u32, chance: u64) {
            prop_assert!(backoff(attempt, chance) <= Duration::from_secs(60));
        }
    }
}
