//! The budget of a mailbox as the state of a row.
//!
//! In octets: how many mails there are (4), and for each, oldest first, the instant (8) and the challenge
//! (16); for each failure, oldest first, the instant (8), the client (16, zeros if it is not known), with
//! how many normal codes (1) and how many stepped-up ones (1) it was compared. There are no fewer mails and
//! failures than some, all zeros if need be, so that a row weighs the same whether a code was compared or
//! not.

use rusqlite::Connection;

use super::mailbox::{self, Found};
use super::octets::Octets;
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::budget::{Budget, ClientPrefix, Evaluated, Failure, Mail};
use crate::otp::clock::UnixMillis;
use crate::otp::policy::Policy;

const FEWEST_MAILS: usize = 1;
const FEWEST_FAILURES: usize = 6;
const MAIL: usize = 24;
const FAILURE: usize = 26;
/// A client that is not known; no name of one has it.
const NOBODY: [u8; 16] = [0; 16];

/// What is remembered of this mailbox; nothing without limits.
pub fn load(db: &Connection, policy: &Policy, limit: LimitId) -> rusqlite::Result<Found<Budget>> {
    match policy.limits {
        Some(_) => mailbox::load(db, &mailbox::budget(limit), read),
        None => Ok(Found::default()),
    }
}

/// Writes it, if there are limits.
pub fn save(
    db: &Connection,
    policy: &Policy,
    limit: LimitId,
    budget: &Found<Budget>,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    if policy.limits.is_none() {
        return Ok(());
    }
    let (name, state) = (mailbox::budget(limit), written(&budget.state));
    budget.save(db, &name, &state, budget.state.ends_at(), now)
}

fn read(octets: &mut Octets<'_>) -> Option<Budget> {
    let count = usize::try_from(octets.number()?).ok()?;
    let (mails, failures) = octets.0.split_at_checked(count.checked_mul(MAIL)?)?;
    let mut budget = Budget {
        mails: Octets(mails).list(mail)?,
        failures: Octets(failures).list(failure)?,
    };
    budget.mails.retain(|mail| mail.at.0 > 0);
    budget.failures.retain(|failure| failure.at.0 > 0);
    Some(budget)
}

fn written(budget: &Budget) -> Vec<u8> {
    let mails = budget.mails.len().max(FEWEST_MAILS);
    let failures = budget.failures.len().max(FEWEST_FAILURES);
    let mut octets = Vec::with_capacity(4 + mails * MAIL + failures * FAILURE);
    octets.extend(u32::try_from(mails).unwrap_or(u32::MAX).to_be_bytes());
    octets.resize(octets.len() + (mails - budget.mails.len()) * MAIL, 0);
    for mail in &budget.mails {
        octets.extend(mail.at.0.to_be_bytes());
        octets.extend(mail.challenge.0);
    }
    octets.resize(
        octets.len() + (failures - budget.failures.len()) * FAILURE,
        0,
    );
    for failure in &budget.failures {
        octets.extend(failure.at.0.to_be_bytes());
        octets.extend(failure.client.map_or(NOBODY, |client| client.0));
        octets.extend([failure.evaluated.normal, failure.evaluated.stepped]);
    }
    octets
}

fn mail(octets: &mut Octets<'_>) -> Option<Mail> {
    Some(Mail {
        at: octets.instant()?,
        challenge: ChallengeId(octets.take()?),
    })
}

fn failure(octets: &mut Octets<'_>) -> Option<Failure> {
    let at = octets.instant()?;
    let client = octets.take()?;
    let (normal, stepped) = (octets.octet()?, octets.octet()?);
    Some(Failure {
        at,
        client: (client != NOBODY).then_some(ClientPrefix(client)),
        evaluated: Evaluated { normal, stepped },
    })
}
