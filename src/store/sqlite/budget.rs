//! The budgets of mailboxes as rows: one row each, read and written whole, since it is small and
//! every decision needs all of it.

use data_encoding::HEXLOWER;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::EMPTY_ROW;
use super::signed;
use super::sweep::{Swept, swept};
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::budget::{Budget, ClientPrefix, Evaluated, Failure, Mail};
use crate::otp::clock::UnixMillis;

const TABLE: Swept = swept!("budget", "limit_id", "ends_at");

/// A row has no fewer mails and failures than these, so that reading and writing it takes the same
/// time whether a code was compared or not. What stands in for missing ones ended in 2001.
const FEWEST_MAILS: usize = 1;
const FEWEST_FAILURES: usize = 6;
const PAST: UnixMillis = UnixMillis(1_000_000_000_000);
/// A client that is not known; no name of one has it.
const NOBODY: [u8; 16] = [0; 16];

type MailRow = (UnixMillis, String);
type FailureRow = (UnixMillis, Option<String>, u8, u8);

/// What is remembered of this mailbox.
pub fn load(db: &Connection, limit: LimitId) -> rusqlite::Result<Budget> {
    let found = db
        .prepare_cached("SELECT mails, failures FROM budget WHERE limit_id = ?")?
        .query_row([limit.0], |row| {
            let mails = list(row, 0)?.into_iter().map(mail);
            let failures = list(row, 1)?.into_iter().map(failure);
            let mut budget = Budget {
                mails: mails.collect::<Option<_>>().ok_or_else(|| unreadable(0))?,
                failures: failures
                    .collect::<Option<_>>()
                    .ok_or_else(|| unreadable(1))?,
            };
            budget.mails.retain(|mail| mail.at > PAST);
            budget.failures.retain(|failure| failure.at > PAST);
            Ok(budget)
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Writes it, and removes a few that are over.
pub fn save(
    db: &Connection,
    limit: LimitId,
    budget: &Budget,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let mails = budget
        .mails
        .iter()
        .map(|mail| (mail.at, mail.challenge.to_string()));
    let failures = budget.failures.iter().map(|failure| {
        let client = failure.client.map_or(NOBODY, |client| client.0);
        let Evaluated { normal, stepped } = failure.evaluated;
        (failure.at, Some(HEXLOWER.encode(&client)), normal, stepped)
    });
    let no_mail: MailRow = (PAST, HEXLOWER.encode(&NOBODY));
    let no_failure: FailureRow = (PAST, Some(HEXLOWER.encode(&NOBODY)), 1, 0);
    let mails = filled(no_mail, FEWEST_MAILS, mails);
    let failures = filled(no_failure, FEWEST_FAILURES, failures);
    let least = now.after(EMPTY_ROW);
    db.prepare_cached(
        "INSERT INTO budget (limit_id, mails, failures, ends_at) VALUES (?, ?, ?, ?)
         ON CONFLICT (limit_id) DO UPDATE SET
             mails = excluded.mails, failures = excluded.failures, ends_at = excluded.ends_at,
             writes = writes + 1",
    )?
    .execute(params![
        limit.0,
        written(&mails)?,
        written(&failures)?,
        signed(budget.ends_at().map_or(least, |ends| ends.max(least))),
    ])?;
    TABLE.sweep_after(db, limit.0, now)
}

/// The items behind as many stand-ins as are missing.
fn filled<T: Clone>(stand_in: T, fewest: usize, items: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let missing = fewest.saturating_sub(items.len());
    std::iter::repeat_n(stand_in, missing)
        .chain(items)
        .collect()
}

fn written<T: Serialize>(list: &[T]) -> rusqlite::Result<String> {
    serde_json::to_string(list)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn list<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<T>> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|_unspecific| unreadable(column))
}

fn mail((at, challenge): MailRow) -> Option<Mail> {
    let challenge = ChallengeId::parse(&challenge)?;
    Some(Mail { at, challenge })
}

fn failure((at, client, normal, stepped): FailureRow) -> Option<Failure> {
    let client = match client {
        Some(text) => HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()?,
        None => NOBODY,
    };
    let client = (client != NOBODY).then_some(ClientPrefix(client));
    let evaluated = Evaluated { normal, stepped };
    Some(Failure {
        at,
        client,
        evaluated,
    })
}

fn unreadable(column: usize) -> rusqlite::Error {
    let reason = "a budget in a form that this version does not know";
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, reason.into())
}
