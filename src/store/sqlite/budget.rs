//! The budgets of mailboxes as rows: one row each, read and written whole, since it is small and
//! every decision needs all of it.

use data_encoding::HEXLOWER;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::{SWEPT_AT_ONCE, signed};
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::budget::{Budget, ClientPrefix, Evaluated, Failure, Mail};
use crate::otp::clock::UnixMillis;

type MailRow = (UnixMillis, String);
type FailureRow = (UnixMillis, Option<String>, u8, u8);

/// What is remembered of this mailbox.
pub fn load(db: &Connection, limit: LimitId) -> rusqlite::Result<Budget> {
    let found = db
        .prepare_cached("SELECT mails, failures FROM budget WHERE limit_id = ?")?
        .query_row([limit.0], |row| {
            let mails = list(row, 0)?.into_iter().map(mail);
            let failures = list(row, 1)?.into_iter().map(failure);
            Ok(Budget {
                mails: mails.collect::<Option<_>>().ok_or_else(|| unreadable(0))?,
                failures: failures
                    .collect::<Option<_>>()
                    .ok_or_else(|| unreadable(1))?,
            })
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
    let mails: Vec<MailRow> = budget
        .mails
        .iter()
        .map(|mail| (mail.at, mail.challenge.to_string()))
        .collect();
    let failures: Vec<FailureRow> = budget
        .failures
        .iter()
        .map(|failure| {
            let client = failure.client.map(|client| HEXLOWER.encode(&client.0));
            let Evaluated { normal, stepped } = failure.evaluated;
            (failure.at, client, normal, stepped)
        })
        .collect();
    db.prepare_cached("INSERT OR REPLACE INTO budget VALUES (?, ?, ?, ?)")?
        .execute(params![
            limit.0,
            serde_json::json!(mails).to_string(),
            serde_json::json!(failures).to_string(),
            signed(budget.ends_at().unwrap_or(now)),
        ])?;
    db.prepare_cached(
        "DELETE FROM budget WHERE limit_id IN
             (SELECT limit_id FROM budget WHERE ends_at <= ? ORDER BY ends_at LIMIT ?)",
    )?
    .execute(params![signed(now), SWEPT_AT_ONCE])?;
    Ok(())
}

fn list<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<T>> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|_unspecific| unreadable(column))
}

fn mail((at, challenge): MailRow) -> Option<Mail> {
    let challenge = ChallengeId::parse(&challenge)?;
    Some(Mail { at, challenge })
}

fn failure((at, client, normal, stepped): FailureRow) -> Option<Failure> {
    let client = match client {
        Some(text) => Some(ClientPrefix(
            HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()?,
        )),
        None => None,
    };
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
