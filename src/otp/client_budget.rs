//! What is remembered of one client, the network that an end user is in: the codes that it asked for
//! and the codes that it got wrong, for as long as a window counts them. Windows slide exactly.
//!
//! A client counts in its own bucket and, with IPv6, in those of the networks around it, since
//! whoever has one network commonly has others beside it. All of them must have room, or nothing is
//! charged to any. The size of a bucket is bounded by the limits themselves.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use super::address::LimitId;
use super::budget::ClientPrefix;
use super::clock::UnixMillis;
use super::keys::KeyRing;
use super::policy::{ClientLimits, HOUR, TEN_MINUTES};

/// How many times the limits a bucket has, from a client's own one to the widest.
pub const FACTORS: [u32; 3] = [1, 2, 4];
/// How many bits of an IPv6 address name a bucket, from a client's own one to the widest.
pub const IPV6_PREFIXES: [usize; 3] = [64, 56, 48];

/// The buckets that a client counts in, by their names.
///
/// An IPv4 address has one of its own. An IPv6 address shares one with all of its /64, and wider
/// ones with its /56 and its /48. An IPv4 address mapped into IPv6 is that IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientBuckets {
    own: ClientPrefix,
    wider: Option<[ClientPrefix; 2]>,
    group: ClientPrefix,
}

/// Which mailbox a code was asked for: as much of its name as tells those of one client apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox(pub [u8; 8]);

/// A code that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generate {
    /// When.
    pub at: UnixMillis,
    /// For whom.
    pub mailbox: Mailbox,
}

/// One bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientBudget {
    /// Codes asked for in the last hour, oldest first.
    pub generates: Vec<Generate>,
    /// When a code was wrong in the last hour, oldest first.
    pub failures: Vec<UnixMillis>,
}

/// All buckets of one client, its own one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientBudgets(pub Vec<ClientBudget>);

/// What is limited, and over which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLimit {
    /// Codes asked for in ten minutes.
    GeneratesIn10Minutes,
    /// Codes asked for in an hour.
    GeneratesInAnHour,
    /// Different mailboxes in an hour that a code was asked for.
    AddressesInAnHour,
    /// Wrong codes in an hour.
    FailuresInAnHour,
}

/// One limit as a client's own bucket stands. Those of others around it are not the client's to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Which.
    pub limit: ClientLimit,
    /// How many there may be.
    pub most: u32,
    /// How many more there may be now.
    pub remaining: u32,
    /// When there may be one more than now; nothing if none is counted.
    pub more_in: Duration,
}

/// The limits of asking for codes, as a client stands.
pub type GenerateQuotas = [Quota; 3];

/// What limits asking for a code.
pub const GENERATE_LIMITS: [ClientLimit; 3] = [
    ClientLimit::GeneratesIn10Minutes,
    ClientLimit::GeneratesInAnHour,
    ClientLimit::AddressesInAnHour,
];

impl ClientBuckets {
    /// The buckets of a client with this address.
    pub fn of(keys: &KeyRing, address: IpAddr) -> Self {
        let name = |prefix: &[u8]| ClientPrefix(keys.name(&[b"client", prefix]));
        match address.to_canonical() {
            IpAddr::V4(address) => Self {
                own: name(&address.octets()),
                wider: None,
                group: name(&address.octets()[..3]),
            },
            IpAddr::V6(address) => {
                let octets = address.octets();
                let [own, wider, widest] = IPV6_PREFIXES.map(|bits| name(&octets[..bits / 8]));
                Self {
                    own,
                    wider: Some([wider, widest]),
                    group: widest,
                }
            }
        }
    }

    /// The client's own bucket.
    pub fn own(&self) -> ClientPrefix {
        self.own
    }

    /// What its buckets have in common with those of its neighbours, so that one node of a cluster
    /// has them together.
    pub fn group(&self) -> ClientPrefix {
        self.group
    }

    /// Its buckets, its own one first.
    pub fn names(&self) -> impl Iterator<Item = ClientPrefix> {
        std::iter::once(self.own).chain(self.wider.into_iter().flatten())
    }
}

impl Mailbox {
    /// The mailbox of this name.
    pub fn of(limit: LimitId) -> Self {
        let mut head = [0; 8];
        head.copy_from_slice(&limit.0[..8]);
        Self(head)
    }
}

impl ClientLimit {
    /// The time that it counts.
    pub fn window(self) -> Duration {
        match self {
            Self::GeneratesIn10Minutes => TEN_MINUTES,
            Self::GeneratesInAnHour | Self::AddressesInAnHour | Self::FailuresInAnHour => HOUR,
        }
    }

    /// How many a client's own bucket has of it.
    pub fn most(self, limits: &ClientLimits) -> u32 {
        match self {
            Self::GeneratesIn10Minutes => limits.generate_per_10m,
            Self::GeneratesInAnHour => limits.generate_per_hour,
            Self::AddressesInAnHour => limits.distinct_addresses_per_hour,
            Self::FailuresInAnHour => limits.verify_failures_per_hour,
        }
    }
}

impl ClientBudget {
    /// When nothing of it matters any more; `None` if nothing is in it.
    pub fn ends_at(&self) -> Option<UnixMillis> {
        let generates = self.generates.iter().map(|generate| generate.at);
        let last = generates.chain(self.failures.iter().copied()).max()?;
        Some(last.after(HOUR))
    }

    /// When what a limit counts began to count, oldest first. A mailbox counts from the last code
    /// that was asked for it.
    fn counted(&self, limit: ClientLimit, now: UnixMillis) -> Vec<UnixMillis> {
        let is_recent = |at: &UnixMillis| at.after(limit.window()) > now;
        match limit {
            ClientLimit::FailuresInAnHour => {
                self.failures.iter().copied().filter(is_recent).collect()
            }
            ClientLimit::GeneratesIn10Minutes | ClientLimit::GeneratesInAnHour => {
                let instants = self.generates.iter().map(|generate| generate.at);
                instants.filter(is_recent).collect()
            }
            ClientLimit::AddressesInAnHour => {
                let mut seen = HashSet::new();
                let newest_first = self.generates.iter().rev();
                let last = newest_first.filter(|generate| seen.insert(generate.mailbox));
                let mut instants: Vec<UnixMillis> =
                    last.map(|generate| generate.at).filter(is_recent).collect();
                instants.reverse();
                instants
            }
        }
    }

    fn knows(&self, mailbox: Mailbox, now: UnixMillis) -> bool {
        self.generates
            .iter()
            .any(|generate| generate.mailbox == mailbox && generate.at.after(HOUR) > now)
    }

    fn quota(&self, limit: ClientLimit, limits: &ClientLimits, now: UnixMillis) -> Quota {
        let (most, counted) = (limit.most(limits), self.counted(limit, now));
        let spent = u32::try_from(counted.len()).unwrap_or(u32::MAX);
        Quota {
            limit,
            most,
            remaining: most.saturating_sub(spent),
            more_in: until_one_more(limit, &counted, most, now),
        }
    }
}

impl ClientBudgets {
    /// Drops what no window holds any more.
    pub fn forget_what_is_over(&mut self, now: UnixMillis) {
        for budget in &mut self.0 {
            let is_recent = |at: UnixMillis| at.after(HOUR) > now;
            budget.generates.retain(|generate| is_recent(generate.at));
            budget.failures.retain(|at| is_recent(*at));
        }
    }

    /// How long until a code may be asked for this mailbox; nothing if it may now.
    pub fn generate_wait(
        &self,
        limits: &ClientLimits,
        now: UnixMillis,
        mailbox: Mailbox,
    ) -> Duration {
        let waits = GENERATE_LIMITS.map(|limit| {
            self.wait(limit, limits, now, |budget| {
                limit == ClientLimit::AddressesInAnHour && budget.knows(mailbox, now)
            })
        });
        waits.into_iter().max().unwrap_or_default()
    }

    /// Charges a code that is asked for.
    pub fn charge_generate(&mut self, at: UnixMillis, mailbox: Mailbox) {
        for budget in &mut self.0 {
            budget.generates.push(Generate { at, mailbox });
        }
    }

    /// Takes back the newest code that this client asked for the mailbox, from all buckets. Those
    /// of its neighbours stay.
    pub fn give_back_generate(&mut self, mailbox: Mailbox) {
        let own = self.0.first().map_or(&[][..], |budget| &budget.generates);
        let Some(newest) = own.iter().rfind(|each| each.mailbox == mailbox).copied() else {
            return;
        };
        for budget in &mut self.0 {
            if let Some(place) = budget.generates.iter().rposition(|each| *each == newest) {
                budget.generates.remove(place);
            }
        }
    }

    /// How long until one more code may be wrong; nothing if it may now.
    pub fn failure_wait(&self, limits: &ClientLimits, now: UnixMillis) -> Duration {
        self.wait(ClientLimit::FailuresInAnHour, limits, now, |_budget| false)
    }

    /// Charges a wrong code.
    pub fn charge_failure(&mut self, at: UnixMillis) {
        for budget in &mut self.0 {
            budget.failures.push(at);
        }
    }

    /// How the client stands with asking for codes.
    pub fn generate_quotas(
        &self,
        limits: &ClientLimits,
        now: UnixMillis,
    ) -> Option<GenerateQuotas> {
        let own = self.0.first()?;
        Some(GENERATE_LIMITS.map(|limit| own.quota(limit, limits, now)))
    }

    /// How the client stands with wrong codes.
    pub fn failure_quota(&self, limits: &ClientLimits, now: UnixMillis) -> Option<Quota> {
        let own = self.0.first()?;
        Some(own.quota(ClientLimit::FailuresInAnHour, limits, now))
    }

    fn wait(
        &self,
        limit: ClientLimit,
        limits: &ClientLimits,
        now: UnixMillis,
        is_exempt: impl Fn(&ClientBudget) -> bool,
    ) -> Duration {
        let waits = self.0.iter().zip(FACTORS).map(|(budget, factor)| {
            let most = limit.most(limits).saturating_mul(factor);
            let counted = budget.counted(limit, now);
            if counted.len() < most as usize || is_exempt(budget) {
                return Duration::ZERO;
            }
            until_one_more(limit, &counted, most, now)
        });
        waits.max().unwrap_or_default()
    }
}

/// How long until one more than now fits: until the oldest of those is over that fill the limit.
fn until_one_more(
    limit: ClientLimit,
    counted: &[UnixMillis],
    most: u32,
    now: UnixMillis,
) -> Duration {
    let beyond = counted.len().saturating_sub(most as usize);
    counted
        .get(beyond)
        .map_or(Duration::ZERO, |at| at.after(limit.window()).since(now))
}

#[cfg(test)]
mod tests;
