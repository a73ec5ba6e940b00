//! The buckets of clients as rows: one row each, there only while something is charged.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::signed;
use super::sweep::{Swept, swept};
use crate::otp::budget::ClientPrefix;
use crate::otp::client_budget::{
    ClientBuckets, ClientBudget, ClientBudgets, Generate, GenerateQuotas, Mailbox, Quota,
};
use crate::otp::clock::UnixMillis;
use crate::otp::policy::{ClientLimits, Policy};

const TABLE: Swept = swept!("client", "prefix", "ends_at");

/// The client of one operation, and what its buckets hold.
pub struct Client {
    names: ClientBuckets,
    limits: ClientLimits,
    before: ClientBudgets,
    /// What they are to hold.
    pub budgets: ClientBudgets,
}

impl Client {
    /// Reads the buckets; `None` where nobody counts for whom it is.
    pub fn load(
        db: &Connection,
        policy: &Policy,
        now: UnixMillis,
        client: Option<ClientBuckets>,
    ) -> rusqlite::Result<Option<Self>> {
        let Some((limits, names)) = policy.limits_of_clients().zip(client) else {
            return Ok(None);
        };
        let budgets: rusqlite::Result<Vec<ClientBudget>> =
            names.names().map(|name| load(db, name)).collect();
        let before = ClientBudgets(budgets?);
        let mut budgets = before.clone();
        budgets.forget_what_is_over(now);
        Ok(Some(Self {
            names,
            limits,
            before,
            budgets,
        }))
    }

    /// How long until a code may be asked for this mailbox.
    pub fn generate_wait(&self, now: UnixMillis, mailbox: Mailbox) -> Duration {
        self.budgets.generate_wait(&self.limits, now, mailbox)
    }

    /// How long until one more code may be wrong.
    pub fn failure_wait(&self, now: UnixMillis) -> Duration {
        self.budgets.failure_wait(&self.limits, now)
    }

    /// How the client stands with asking for codes.
    pub fn generate_quotas(&self, now: UnixMillis) -> Option<GenerateQuotas> {
        self.budgets.generate_quotas(&self.limits, now)
    }

    /// How the client stands with wrong codes.
    pub fn failure_quota(&self, now: UnixMillis) -> Option<Quota> {
        self.budgets.failure_quota(&self.limits, now)
    }

    /// Writes what has changed, and removes a few rows that are over.
    pub fn save(&self, db: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
        let changes = self.before.0.iter().zip(&self.budgets.0);
        for (name, (before, after)) in self.names.names().zip(changes) {
            if before != after {
                save(db, name, after)?;
            }
        }
        TABLE.sweep_after(db, self.names.own().0, now)
    }
}

fn load(db: &Connection, name: ClientPrefix) -> rusqlite::Result<ClientBudget> {
    let found = db
        .prepare_cached("SELECT generates, failures FROM client WHERE prefix = ?")?
        .query_row([name.0], |row| {
            let generates = list::<16>(row, 0)?.into_iter().map(generate);
            let failures = list::<8>(row, 1)?.into_iter().map(instant);
            Ok(ClientBudget {
                generates: generates.collect(),
                failures: failures.collect(),
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

fn save(db: &Connection, name: ClientPrefix, budget: &ClientBudget) -> rusqlite::Result<()> {
    let Some(ends_at) = budget.ends_at() else {
        db.prepare_cached("DELETE FROM client WHERE prefix = ?")?
            .execute([name.0])?;
        return Ok(());
    };
    let generates: Vec<u8> = budget
        .generates
        .iter()
        .flat_map(|each| [each.at.0.to_be_bytes(), each.mailbox.0].concat())
        .collect();
    let failures: Vec<u8> = budget
        .failures
        .iter()
        .flat_map(|at| at.0.to_be_bytes())
        .collect();
    db.prepare_cached("INSERT OR REPLACE INTO client VALUES (?, ?, ?, ?)")?
        .execute(params![name.0, generates, failures, signed(ends_at)])?;
    Ok(())
}

/// The members of a list, each of so many bytes.
fn list<const N: usize>(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<[u8; N]>> {
    let bytes = row.get_ref(column)?.as_blob()?;
    let (members, []) = bytes.as_chunks::<N>() else {
        let reason = "a bucket in a form that this version does not know";
        return Err(rusqlite::Error::FromSqlConversionFailure(
            column,
            Type::Blob,
            reason.into(),
        ));
    };
    Ok(members.to_vec())
}

fn generate(member: [u8; 16]) -> Generate {
    let both = u128::from_be_bytes(member);
    let [at, mailbox] = [both >> 64, both & u128::from(u64::MAX)];
    let half = |value: u128| u64::try_from(value).unwrap_or_default();
    Generate {
        at: UnixMillis(half(at)),
        mailbox: Mailbox(half(mailbox).to_be_bytes()),
    }
}

fn instant(member: [u8; 8]) -> UnixMillis {
    UnixMillis(u64::from_be_bytes(member))
}
