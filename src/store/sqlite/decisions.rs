//! What concerns a mailbox and a client at once: both are read, decided about and charged in one
//! operation, and what one of them refuses costs the other nothing.

use std::time::Duration;

use rusqlite::Connection;

use super::client::Client;
use super::{budget, idempotency, mailbox, record};
use crate::otp::client_budget::Mailbox;
use crate::otp::clock::UnixMillis;
use crate::otp::idempotency::{Remembered, Repetition};
use crate::otp::policy::Policy;
use crate::store::{Admission, AdmitRequest, Admitted, Check, Verdict, VerifyRequest};

/// Decides whether one more mail may be sent, for the client and then for the mailbox. A request that
/// repeats another is charged to neither.
pub fn admit(
    db: &Connection,
    policy: &Policy,
    now: UnixMillis,
    request: &AdmitRequest,
) -> rusqlite::Result<Admitted> {
    let mut client = Client::load(db, policy, now, request.client)?;
    let admission = match repetition(db, now, request)? {
        Some(repetition) => Admission::Repeated(repetition),
        None => charge(db, policy, now, request, client.as_mut())?,
    };
    if admission == Admission::Granted
        && let Some(repeatable) = &request.repeatable
    {
        let remembered = Remembered::new(repeatable, now);
        idempotency::save(db, repeatable.key, &remembered, now)?;
    }
    Ok(Admitted {
        admission,
        client: client.and_then(|client| client.generate_quotas(now)),
    })
}

fn repetition(
    db: &Connection,
    now: UnixMillis,
    request: &AdmitRequest,
) -> rusqlite::Result<Option<Repetition>> {
    let Some(repeatable) = &request.repeatable else {
        return Ok(None);
    };
    let Some(mut remembered) = idempotency::load(db, repeatable.key, now)? else {
        return Ok(None);
    };
    let repetition = remembered.repeat(repeatable, now);
    if matches!(repetition, Repetition::Unfinished { .. }) {
        idempotency::save(db, repeatable.key, &remembered, now)?;
    }
    Ok(Some(repetition))
}

fn charge(
    db: &Connection,
    policy: &Policy,
    now: UnixMillis,
    request: &AdmitRequest,
    client: Option<&mut Client>,
) -> rusqlite::Result<Admission> {
    let Some(limits) = &policy.limits else {
        return Ok(Admission::Granted);
    };
    let mailbox = Mailbox::of(request.limit);
    let wait = client
        .as_ref()
        .map_or(Duration::ZERO, |client| client.generate_wait(now, mailbox));
    if !wait.is_zero() {
        return Ok(Admission::ClientRefused { retry_after: wait });
    }
    let mut budget = budget::load(db, policy, request.limit)?;
    let admission = budget.state.admit(limits, now, request.challenge);
    if admission == Admission::Granted {
        budget::save(db, policy, request.limit, &budget, now)?;
        mailbox::sweep(db, &request.limit.0, now)?;
        if let Some(client) = client {
            client.budgets.charge_generate(now, mailbox);
            client.save(db, now)?;
        }
    }
    Ok(admission)
}

/// Takes back what [`admit`] counted, and forgets a request that might have been repeated.
pub fn give_back(
    db: &Connection,
    policy: &Policy,
    now: UnixMillis,
    request: &AdmitRequest,
) -> rusqlite::Result<()> {
    if let Some(repeatable) = &request.repeatable {
        idempotency::forget(db, repeatable)?;
    }
    if let Some(mut client) = Client::load(db, policy, now, request.client)? {
        client
            .budgets
            .give_back_generate(Mailbox::of(request.limit));
        client.save(db, now)?;
    }
    let mut budget = budget::load(db, policy, request.limit)?;
    budget.state.give_back(request.challenge);
    budget::save(db, policy, request.limit, &budget, now)
}

/// Decides whether a code is right, unless the client has had its failures. Every failure is the
/// client's, whatever its cause: one that counted only against a live code would
/// tell that there is one.
pub fn verify(
    db: &Connection,
    policy: &Policy,
    now: UnixMillis,
    request: &VerifyRequest,
) -> rusqlite::Result<Check> {
    let Some(mut client) = Client::load(db, policy, now, request.client)? else {
        return check(db, policy, now, request);
    };
    let wait = client.failure_wait(now);
    let check = if wait.is_zero() {
        let check = check(db, policy, now, request)?;
        match check.verdict {
            Verdict::Correct => {
                let mailbox = Mailbox::of(request.limit);
                client.budgets.give_back_generate(mailbox);
            }
            Verdict::Repeated => {}
            _ => client.budgets.charge_failure(now),
        }
        client.save(db, now)?;
        check
    } else {
        Check::refused(wait)
    };
    Ok(Check {
        client: client.failure_quota(now),
        ..check
    })
}

fn check(
    db: &Connection,
    policy: &Policy,
    now: UnixMillis,
    request: &VerifyRequest,
) -> rusqlite::Result<Check> {
    let (limit, challenge) = (request.limit, request.challenge);
    let mut record = record::load(db, limit, challenge)?;
    let mut budget = budget::load(db, policy, limit)?;
    let check = record.state.verify(&mut budget.state, policy, now, request);
    // The same statements whatever the answer, even if there is nothing to say: their time must not
    // tell whether a code is live. The budget first, since the record may stand next to it.
    budget::save(db, policy, limit, &budget, now)?;
    record::save(db, limit, challenge, &record, now)?;
    Ok(check)
}
