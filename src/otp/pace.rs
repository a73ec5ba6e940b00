//! How many mails a minute may go out to one recipient domain, and how many requests for one the whole
//! service accepts. The minute slides exactly: between any instant and the one 60 s later there are never
//! more mails than the pace allows. Nothing makes room early but a mail that was not sent, and a clock
//! that is set back by more than a minute: what was counted under the wrong time is over then.

use std::fmt;
use std::time::Duration;

use super::address::EmailAddress;
use super::clock::{UnixMillis, millis};
use super::keys::KeyRing;

/// The window of every pace.
pub const MINUTE: Duration = Duration::from_secs(60);

/// What a pace is kept for; the store knows it by this name alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PaceName(pub [u8; 16]);

impl PaceName {
    /// `HMAC-SHA-256(K_addr, "domain" || A-label domain)`, 128 bits.
    pub fn domain(keys: &KeyRing, address: &EmailAddress) -> Self {
        Self(keys.name(&[b"domain", address.domain().as_bytes()]))
    }

    /// `HMAC-SHA-256(K_addr, "service")`, 128 bits.
    pub fn service(keys: &KeyRing) -> Self {
        Self(keys.name(&[b"service"]))
    }
}

impl fmt::Display for PaceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PaceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PaceName({self})")
    }
}

/// So many mails in any 60 s under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Under which name they count.
    pub name: PaceName,
    /// How many; at least 1.
    pub per_minute: u32,
}

/// Whether one more mail is within a pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paced {
    /// It is, and it counts from this instant on, by which it is given back if it is not sent.
    Now(UnixMillis),
    /// It is not; nothing is counted. There is room after this time if nobody else takes it.
    Wait(Duration),
}

/// A wait to which an even spread over one window is added, so that those who were told to wait do
/// not come back at once. `chance` is a random number.
pub fn spread(wait: Duration, chance: u64) -> Duration {
    wait + Duration::from_millis(chance % (millis(MINUTE) + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domain(address: &str) -> PaceName {
        let keys = KeyRing::new(&[1; 32], &[], &[2; 32]);
        PaceName::domain(&keys, &EmailAddress::parse(address).unwrap())
    }

    #[test]
    fn addresses_at_one_domain_share_a_name_however_it_is_written() {
        let name = domain("ada@xn--bcher-kva.example");
        assert_eq!(name, domain("bob@BÜCHER.example"));
        assert_ne!(name, domain("ada@sub.xn--bcher-kva.example"));
        let keys = KeyRing::new(&[1; 32], &[], &[2; 32]);
        assert_ne!(name, PaceName::service(&keys));
        assert!(!format!("{name:?}{name}").contains("example"));
    }

    proptest! {
        #[test]
        fn nobody_is_sent_for_early_or_more_than_a_minute_late(
            wait in 0_u64..=60_000, chance: u64
        ) {
            let wait = Duration::from_millis(wait);
            let spread = spread(wait, chance);
            prop_assert!(spread >= wait && spread <= wait + MINUTE);
        }
    }

    #[test]
    fn the_spread_covers_the_whole_minute() {
        let spread = |chance| spread(Duration::ZERO, chance).as_millis();
        assert_eq!([spread(0), spread(60_000), spread(60_001)], [0, 60_000, 0]);
    }
}
