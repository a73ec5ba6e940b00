//! The budgets of mailboxes as rows: one row each, read and written whole, since it is small and
//! every decision needs all of it.

use rusqlite::{Connection, OptionalExtension, params};

use super::octets::{Octets, unreadable};
use super::record::EMPTY_ROW;
use super::signed;
use super::sweep::{Swept, swept};
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::budget::{Budget, ClientPrefix, Evaluated, Failure, Mail};
use crate::otp::clock::UnixMillis;
use crate::otp::policy::Policy;

const TABLE: Swept = swept!("mailbox", "limit_id", "ends_at");

/// Octets of a mail and of a failure.
const MAIL: usize = 24;
const FAILURE: usize = 26;
/// A row has no fewer mails and failures than these, so that reading and writing it takes the same
/// time whether a code was compared or not. What stands in for missing ones is all zeros.
const FEWEST_MAILS: usize = 1;
const FEWEST_FAILURES: usize = 6;
/// A client that is not known; no name of one has it.
const NOBODY: [u8; 16] = [0; 16];

/// What is remembered of this mailbox, and how often it was written; nothing without limits.
pub fn load(db: &Connection, policy: &Policy, limit: LimitId) -> rusqlite::Result<(Budget, u32)> {
    if policy.limits.is_none() {
        return Ok(Default::default());
    }
    let found = db
        .prepare_cached("SELECT mails, failures, writes FROM mailbox WHERE limit_id = ?")?
        .query_row([limit.0], |row| {
            let mails = Octets(row.get_ref(0)?.as_blob()?).list(mail);
            let failures = Octets(row.get_ref(1)?.as_blob()?).list(failure);
            let mut budget = Budget {
                mails: mails.ok_or_else(|| unreadable(0))?,
                failures: failures.ok_or_else(|| unreadable(1))?,
            };
            budget.mails.retain(|mail| mail.at.0 > 0);
            budget.failures.retain(|failure| failure.at.0 > 0);
            Ok((budget, row.get(2)?))
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Writes it, if there are limits, and removes a few that are over.
pub fn save(
    db: &Connection,
    policy: &Policy,
    limit: LimitId,
    (budget, writes): (&Budget, u32),
    now: UnixMillis,
) -> rusqlite::Result<()> {
    if policy.limits.is_none() {
        return Ok(());
    }
    let missing = FEWEST_MAILS.saturating_sub(budget.mails.len());
    let mut mails = vec![0; missing * MAIL];
    for mail in &budget.mails {
        mails.extend(mail.at.0.to_be_bytes());
        mails.extend(mail.challenge.0);
    }
    let missing = FEWEST_FAILURES.saturating_sub(budget.failures.len());
    let mut failures = vec![0; missing * FAILURE];
    for failure in &budget.failures {
        failures.extend(failure.at.0.to_be_bytes());
        failures.extend(failure.client.map_or(NOBODY, |client| client.0));
        failures.extend([failure.evaluated.normal, failure.evaluated.stepped]);
    }
    let least = now.after(EMPTY_ROW);
    db.prepare_cached("INSERT OR REPLACE INTO mailbox VALUES (?, ?, ?, ?, ?)")?
        .execute(params![
            limit.0,
            mails,
            failures,
            signed(budget.ends_at().map_or(least, |ends| ends.max(least))),
            writes.wrapping_add(1),
        ])?;
    TABLE.sweep_after(db, limit.0, now)
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
