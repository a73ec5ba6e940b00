//! The buckets of clients as rows: one row each, there only while something is charged.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::octets::{Octets, unreadable};
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
            let generates = Octets(row.get_ref(0)?.as_blob()?).list(generate);
            let failures = Octets(row.get_ref(1)?.as_blob()?).list(Octets::instant);
            Ok(ClientBudget {
                generates: generates.ok_or_else(|| unreadable(0))?,
                failures: failures.ok_or_else(|| unreadable(1))?,
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
    let mut generates = Vec::with_capacity(16 * budget.generates.len());
    for generate in &budget.generates {
        generates.extend(generate.at.0.to_be_bytes());
        generates.extend(generate.mailbox.0);
    }
    let mut failures = Vec::with_capacity(8 * budget.failures.len());
    for at in &budget.failures {
        failures.extend(at.0.to_be_bytes());
    }
    db.prepare_cached("INSERT OR REPLACE INTO client VALUES (?, ?, ?, ?)")?
        .execute(params![name.0, generates, failures, signed(ends_at)])?;
    Ok(())
}

fn generate(octets: &mut Octets<'_>) -> Option<Generate> {
    Some(Generate {
        at: octets.instant()?,
        mailbox: Mailbox(octets.take()?),
    })
}
