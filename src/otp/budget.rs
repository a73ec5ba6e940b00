//! What is remembered of one mailbox, over all its spellings and contexts: its mails and its wrong
//! codes, each for as long as a window is that counts it. Windows slide exactly, and nothing but
//! time clears them: no success, no resend and no new code does.
//!
//! It belongs to the same atomic step as the decision about a code, so that what is compared is
//! counted. Its size is bounded by the limits themselves.

use std::time::Duration;

use super::address::{ChallengeId, LimitId};
use super::client_budget::{ClientBuckets, GenerateQuotas};
use super::clock::UnixMillis;
use super::idempotency::{Repeatable, Repetition};
use super::policy::{
    AddressLimits, CLOCK_STEP, DAY, FAILURES_PER_CLIENT_PER_DAY, HOUR, MONTH,
    STEPPED_FAILURES_PER_DAY,
};

/// Asks whether one more mail may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmitRequest {
    /// The mailbox that pays.
    pub limit: LimitId,
    /// The address and context that the mail is for.
    pub challenge: ChallengeId,
    /// The client that asks, if its limits count.
    pub client: Option<ClientBuckets>,
    /// Set if the client may repeat the request.
    pub repeatable: Option<Repeatable>,
}

/// The answer to [`AdmitRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Whether the mail may be sent.
    pub admission: Admission,
    /// How the client stands after it, if clients are limited.
    pub client: Option<GenerateQuotas>,
}

/// Whether one more mail may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may, and is counted.
    Granted,
    /// The mailbox has had its mails; nothing is counted.
    Refused {
        /// When it may, if no other mail comes before it.
        retry_after: Duration,
    },
    /// The client has had its requests; nothing is counted.
    ClientRefused {
        /// When it may, if the client asks for nothing else before.
        retry_after: Duration,
    },
    /// The whole service has accepted the requests that it may in a minute; nothing is counted.
    ServiceRefused {
        /// When it may, if no other request comes before it.
        retry_after: Duration,
    },
    /// The request is a repetition; nothing is counted again.
    Repeated(Repetition),
}

impl From<Admission> for Admitted {
    /// Without a client.
    fn from(admission: Admission) -> Self {
        Self {
            admission,
            client: None,
        }
    }
}

/// The network that a client is in; the store knows it by this name alone, an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientPrefix(pub [u8; 16]);

/// The budget that failures against a code count in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Codes of the configured length.
    Normal,
    /// Longer codes, made while the budget of the normal ones is spent or the breaker open.
    Stepped,
}

/// How many live codes of each class a typed code was compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// Codes of the configured length.
    pub normal: u8,
    /// Stepped-up codes.
    pub stepped: u8,
}

/// A mail that was asked for and accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mail {
    /// When.
    pub at: UnixMillis,
    /// For which address and context.
    pub challenge: ChallengeId,
}

/// A wrong code that was compared with live ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: UnixMillis,
    /// By whom, if that is known.
    pub client: Option<ClientPrefix>,
    /// With which codes it was compared; it counts once in the budget of each class among them.
    pub evaluated: Evaluated,
}

/// All that a store remembers of one mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Mails of the last day, oldest first.
    pub mails: Vec<Mail>,
    /// Wrong codes whose windows are not over, oldest first.
    pub failures: Vec<Failure>,
}

impl Evaluated {
    /// Counts the codes by their classes.
    pub fn of(classes: impl Iterator<Item = Class>) -> Self {
        let mut counted = Self::default();
        for class in classes {
            match class {
                Class::Normal => counted.normal += 1,
                Class::Stepped => counted.stepped += 1,
            }
        }
        counted
    }

    fn has(self, class: Class) -> bool {
        match class {
            Class::Normal => self.normal > 0,
            Class::Stepped => self.stepped > 0,
        }
    }
}

impl Failure {
    /// When no window holds it any more.
    fn ends_at(&self) -> UnixMillis {
        let window = if self.evaluated.has(Class::Normal) {
            MONTH
        } else {
            DAY
        };
        self.at.after(window)
    }
}

impl Budget {
    /// Drops what no window holds any more.
    pub fn forget_what_is_over(&mut self, now: UnixMillis) {
        self.mails.retain(|mail| is_within(DAY, mail.at, now));
        self.failures.retain(|failure| failure.ends_at() > now);
    }

    /// Decides whether one more mail may be sent, and counts it then.
    pub fn admit(
        &mut self,
        limits: &AddressLimits,
        now: UnixMillis,
        challenge: ChallengeId,
    ) -> Admission {
        self.forget_what_is_over(now);
        let all = || self.mails.iter().map(|mail| mail.at);
        // What a wrong clock was shown counts as a mail, and bids nobody wait until that time comes.
        let latest = now.after(CLOCK_STEP);
        let same = self.mails.iter().filter(|mail| mail.challenge == challenge);
        let same = same.map(|mail| mail.at).filter(|at| *at <= latest);
        let waits = [
            wait(same, limits.cooldown, 1, now),
            wait(all(), HOUR, limits.per_hour, now),
            wait(all(), DAY, limits.per_day, now),
        ];
        let retry_after = waits.into_iter().max().unwrap_or_default();
        if !retry_after.is_zero() {
            return Admission::Refused { retry_after };
        }
        self.mails.push(Mail { at: now, challenge });
        Admission::Granted
    }

    /// Takes back the newest mail for this challenge, which was not sent after all.
    pub fn give_back(&mut self, challenge: ChallengeId) {
        let newest = self
            .mails
            .iter()
            .rposition(|mail| mail.challenge == challenge);
        if let Some(place) = newest {
            self.mails.remove(place);
        }
    }

    /// Whether codes of this class are compared; always, without limits.
    pub fn is_open(&self, class: Class, limits: Option<&AddressLimits>, now: UnixMillis) -> bool {
        let Some(limits) = limits else {
            return true;
        };
        let fits = |window, limit: u32| {
            let spent = self
                .failures
                .iter()
                .filter(|failure| failure.evaluated.has(class))
                .filter(|failure| is_within(window, failure.at, now))
                .count();
            spent < limit as usize
        };
        match class {
            Class::Normal => {
                fits(HOUR, limits.failures_per_hour)
                    && fits(DAY, limits.failures_per_day)
                    && fits(MONTH, limits.failures_per_month)
            }
            Class::Stepped => fits(DAY, STEPPED_FAILURES_PER_DAY),
        }
    }

    /// Whether this client may spend one more of the mailbox's failures.
    pub fn has_share(
        &self,
        client: Option<ClientPrefix>,
        limits: Option<&AddressLimits>,
        now: UnixMillis,
    ) -> bool {
        if limits.is_none() || client.is_none() {
            return true;
        }
        let spent = self
            .failures
            .iter()
            .filter(|failure| failure.client == client && is_within(DAY, failure.at, now))
            .count();
        spent < FAILURES_PER_CLIENT_PER_DAY as usize
    }

    /// Counts a wrong code.
    pub fn charge(&mut self, failure: Failure) {
        self.forget_what_is_over(failure.at);
        self.failures.push(failure);
    }

    /// When nothing of it matters any more.
    pub fn ends_at(&self) -> Option<UnixMillis> {
        let mails = self.mails.iter().map(|mail| mail.at.after(DAY));
        mails
            .chain(self.failures.iter().map(Failure::ends_at))
            .max()
    }
}

fn is_within(window: Duration, at: UnixMillis, now: UnixMillis) -> bool {
    at.after(window) > now
}

/// How long until fewer than `limit` of these instants, oldest first, are within the window.
fn wait(
    instants: impl Iterator<Item = UnixMillis>,
    window: Duration,
    limit: u32,
    now: UnixMillis,
) -> Duration {
    let counted: Vec<UnixMillis> = instants.filter(|at| is_within(window, *at, now)).collect();
    match counted.len().checked_sub(limit as usize) {
        Some(place) => counted
            .get(place)
            .map_or(Duration::ZERO, |at| at.after(window).since(now)),
        None => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests;
