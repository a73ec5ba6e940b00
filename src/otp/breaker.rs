//! The breaker on wrong codes over the whole service. What one mailbox bounds, somebody who
//! guesses a little at very many mailboxes stays below; the sum of all wrong codes shows it.
//!
//! A wrong code counts unless a success of the same challenge follows, since people mistype. While
//! the breaker is open, every new code is a stepped-up one.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// A service that has no usual day yet, or a quiet one, bears this many failures in a day.
pub const ALWAYS_BORNE: u64 = 500;
/// Beyond that it bears this many times a usual day.
pub const USUAL_DAYS_BORNE: u64 = 3;
const HOURS_IN_A_DAY: u64 = 24;
/// The days that tell what is usual.
const USUAL_DAYS: usize = 7;
/// How many hours of failures a store keeps: the last day and those that tell what is usual.
pub const HOURS_KEPT: u64 = HOURS_IN_A_DAY * (1 + USUAL_DAYS as u64);

/// The unresolved failures of an hour that a store counted, the hours being counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Which.
    pub number: u64,
    /// How many; fewer than none if failures of an earlier hour were resolved in this one.
    pub failures: i64,
}

/// Unresolved failures in days of 24 hours, the last of them being the current hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In the last 24 hours.
    pub last_day: u64,
    /// The median of the seven days before.
    pub usual_day: u64,
}

impl History {
    /// The history that ends with the hour `current`; in any order, others than those kept count
    /// for nothing.
    pub fn of(hours: impl IntoIterator<Item = Hour>, current: u64) -> Self {
        let mut days = [0_i64; 1 + USUAL_DAYS];
        for hour in hours {
            let Some(age) = current.checked_sub(hour.number) else {
                continue;
            };
            let day = usize::try_from(age / HOURS_IN_A_DAY).unwrap_or(usize::MAX);
            if let Some(sum) = days.get_mut(day) {
                *sum = sum.saturating_add(hour.failures);
            }
        }
        let [last, mut before @ ..] = days.map(|sum| u64::try_from(sum).unwrap_or_default());
        before.sort_unstable();
        Self {
            last_day: last,
            usual_day: before[USUAL_DAYS / 2],
        }
    }

    /// How many failures a day are borne.
    pub fn borne(&self) -> u64 {
        self.usual_day
            .saturating_mul(USUAL_DAYS_BORNE)
            .max(ALWAYS_BORNE)
    }

    /// Whether there are more.
    pub fn is_too_much(&self) -> bool {
        self.last_day > self.borne()
    }
}

/// What one process knows: failures that no store has been told of, and whether the breaker is open.
#[derive(Debug, Default)]
pub struct Breaker {
    untold: AtomicI64,
    is_open: AtomicBool,
}

impl Breaker {
    /// A wrong code was compared with live ones.
    pub fn failed(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
    }

    /// A success followed so many wrong codes of its challenge.
    pub fn resolved(&self, failures: u32) {
        self.untold
            .fetch_sub(i64::from(failures), Ordering::Relaxed);
    }

    /// Takes what is to be told to the store.
    pub fn take(&self) -> i64 {
        self.untold.swap(0, Ordering::Relaxed)
    }

    /// Puts back what the store may not have heard, unless more were resolved than failed. So
    /// failures may count twice and what resolved them not at all, but never the other way round: the
    /// breaker opens too early rather than too late.
    pub fn put_back(&self, untold: i64) {
        self.untold.fetch_add(untold.max(0), Ordering::Relaxed);
    }

    /// Whether new codes are stepped up.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Opens or closes as the history demands; tells whether that is a change.
    pub fn heed(&self, history: &History) -> bool {
        let is_open = history.is_too_much();
        self.is_open.swap(is_open, Ordering::Relaxed) != is_open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const NOW: u64 = 497_222;

    #[test]
    fn a_store_keeps_the_last_day_and_the_seven_that_tell_what_is_usual() {
        assert_eq!(HOURS_KEPT, 8 * 24);
    }

    /// So many failures in each of these days, the last one first, each at its latest hour.
    fn days(failures: &[i64]) -> History {
        let hours = failures.iter().zip(0..).map(|(failures, day)| Hour {
            number: NOW - day * HOURS_IN_A_DAY,
            failures: *failures,
        });
        History::of(hours, NOW)
    }

    #[rstest]
    #[case::a_new_service(&[500], false)]
    #[case::a_new_service_under_attack(&[501], true)]
    #[case::a_quiet_service(&[500, 9, 9, 9, 9, 9, 9, 9], false)]
    #[case::a_busy_service(&[3_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000], false)]
    #[case::a_busy_one_under_attack(&[3_001, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000], true)]
    #[case::one_bad_day_is_not_usual(&[501, 90_000, 9, 9, 9, 9, 9, 9], true)]
    #[case::three_bad_days_are_not(&[501, 90_000, 90_000, 90_000, 9, 9, 9, 9], true)]
    #[case::four_of_seven_are(&[501, 90_000, 90_000, 90_000, 90_000, 9, 9, 9], false)]
    #[case::what_is_older_counts_not(&[501, 0, 0, 0, 0, 0, 0, 0, 90_000], true)]
    #[case::nothing(&[], false)]
    #[case::less_than_nothing(&[-5, -5], false)]
    fn it_opens_beyond_500_and_three_usual_days(#[case] failures: &[i64], #[case] is_open: bool) {
        assert_eq!(days(failures).is_too_much(), is_open);
    }

    #[test]
    fn a_day_has_24_hours_and_ends_with_the_current_one() {
        let at = |age: u64| {
            let hour = Hour {
                number: NOW - age,
                failures: 700,
            };
            History::of([hour], NOW).last_day
        };
        assert_eq!([at(0), at(23), at(24)], [700, 700, 0]);
        let later = Hour {
            number: NOW + 1,
            failures: 700,
        };
        assert_eq!(History::of([later], NOW), History::default());
    }

    #[test]
    fn a_change_is_told_once() {
        let (breaker, attack) = (Breaker::default(), days(&[501]));
        assert!(!breaker.is_open() && !breaker.heed(&days(&[500])));
        assert!(breaker.heed(&attack) && breaker.is_open());
        assert!(!breaker.heed(&attack) && breaker.is_open());
        assert!(breaker.heed(&days(&[])) && !breaker.is_open());
    }

    #[test]
    fn failures_that_a_success_follows_leave_nothing_to_tell() {
        let breaker = Breaker::default();
        (0..4).for_each(|_| breaker.failed());
        breaker.resolved(3);
        assert_eq!((breaker.take(), breaker.take()), (1, 0));
        breaker.put_back(1);
        breaker.resolved(4);
        assert_eq!(breaker.take(), -3);
    }

    #[test]
    fn what_the_store_may_have_heard_is_told_again_unless_the_breaker_would_open_late() {
        let breaker = Breaker::default();
        breaker.failed();
        breaker.put_back(5);
        assert_eq!(breaker.take(), 6);
        breaker.failed();
        breaker.put_back(-5);
        assert_eq!(breaker.take(), 1);
    }

    proptest! {
        #[test]
        fn more_failures_today_never_close_it_and_none_ever_open_it(
            before in prop::collection::vec(0_i64..5_000, 7), today in 0_i64..20_000, more in 0_i64..20_000
        ) {
            let with = |today| days(&[&[today], &before[..]].concat());
            prop_assert!(!with(today).is_too_much() || with(today + more).is_too_much());
            prop_assert!(with(today).is_too_much() == (with(today).last_day > with(0).borne()));
            prop_assert!(!with(500.min(today)).is_too_much());
        }

        #[test]
        fn the_order_of_hours_does_not_matter(
            sums in prop::collection::vec((0..400_u64, -50_i64..2_000), 0..60)
        ) {
            let hours = |(age, failures): &(u64, i64)| Hour { number: NOW - age, failures: *failures };
            let forwards = History::of(sums.iter().map(hours), NOW);
            let backwards = History::of(sums.iter().rev().map(hours), NOW);
            prop_assert_eq!(forwards, backwards);
            let last: i64 = sums.iter().filter(|(age, _)| *age < 24).map(|(_, sum)| sum).sum();
            prop_assert_eq!(forwards.last_day, u64::try_from(last).unwrap_or(0));
        }
    }
}
