//! Clients beside mailboxes. One server has the keys of both, so that one script decides about both:
//! one round trip, and nothing is written unless all of it passes. A cluster keeps them apart: there
//! the client is charged first, and gets it back if it turns out that nothing was to be charged.

use std::time::Duration;

use redis::{FromRedisValue, Value};
use tokio::time::Instant;

use super::answer::{self, duration};
use super::{RedisStore, number, unreadable};
use crate::otp::address::LimitId;
use crate::otp::client_budget::{
    ClientBuckets, ClientLimit, GENERATE_LIMITS, GenerateQuotas, Mailbox, Quota,
};
use crate::otp::clock::millis;
use crate::otp::policy::ClientLimits;
use crate::redis_link::{LinkError, Script};
use crate::store::{Admission, AdmitRequest, Admitted, Check, StoreError, Verdict, VerifyRequest};

/// A client whose limits count, as scripts take it.
pub struct Client {
    buckets: ClientBuckets,
    limits: ClientLimits,
    mailbox: Mailbox,
}

/// What a client was charged with before its mailbox was asked.
#[derive(Clone, Copy)]
pub enum Reserved {
    /// A code that it asks for.
    Generate,
    /// A code that may be wrong.
    Failure,
    /// A code that was right before, or that nobody could look at.
    Repetition,
}

/// How long a client is refused, and how it stands.
pub struct Answer {
    wait: Duration,
    stands: Vec<Value>,
}

impl Client {
    /// The keys of its buckets.
    pub fn keys(&self) -> Vec<String> {
        let hex = |name: [u8; 16]| data_encoding::HEXLOWER.encode(&name);
        let group = hex(self.buckets.group().0);
        self.buckets
            .names()
            .map(|name| format!("otpost:{{p:{group}}}:{}", hex(name.0)))
            .collect()
    }

    fn quota(&self, limit: ClientLimit, remaining: u32, more_in: Duration) -> Quota {
        Quota {
            limit,
            most: limit.most(&self.limits),
            remaining,
            more_in,
        }
    }

    fn next_quota(
        &self,
        limit: ClientLimit,
        parts: &mut impl Iterator<Item = Value>,
    ) -> Option<Quota> {
        let remaining = u32::from_redis_value(parts.next()?).ok()?;
        Some(self.quota(limit, remaining, duration(parts.next()?)?))
    }

    pub(super) fn generate_quotas(
        &self,
        mut parts: impl Iterator<Item = Value>,
    ) -> Option<GenerateQuotas> {
        let [first, second, third] = GENERATE_LIMITS;
        Some([
            self.next_quota(first, &mut parts)?,
            self.next_quota(second, &mut parts)?,
            self.next_quota(third, &mut parts)?,
        ])
    }

    fn failure_quota(&self, mut parts: impl Iterator<Item = Value>) -> Option<Quota> {
        self.next_quota(ClientLimit::FailuresInAnHour, &mut parts)
    }

    /// How it stands with wrong codes.
    pub(super) fn failures(&self, remaining: u32, more_in: Duration) -> Quota {
        self.quota(ClientLimit::FailuresInAnHour, remaining, more_in)
    }
}

impl RedisStore {
    /// The client of a request, if its limits count.
    pub(super) fn client(&self, buckets: Option<ClientBuckets>, limit: LimitId) -> Option<Client> {
        let (limits, buckets) = self.policy.limits_of_clients().zip(buckets)?;
        Some(Client {
            buckets,
            limits,
            mailbox: Mailbox::of(limit),
        })
    }

    /// Verifies in one step, with the client or without one.
    pub(super) async fn verify_with(
        &self,
        request: &VerifyRequest,
        client: Option<&Client>,
    ) -> Result<Check, StoreError> {
        let name = request.client.map(|client| client.own().0.to_vec());
        let key = request.idempotency.map(|key| key.0.to_vec());
        let mut args = vec![
            self.injected_now(),
            name.unwrap_or_default(),
            Mailbox::of(request.limit).0.to_vec(),
            key.unwrap_or_default(),
        ];
        for (key_id, tag) in &request.tags {
            args.push(key_id.0.to_vec());
            args.push(tag.0.to_vec());
        }
        let mut keys = self.keys(request.limit, request.challenge);
        keys.extend(client.into_iter().flat_map(Client::keys));
        let answer: Vec<u8> = self.invoke(&self.scripts.verify, &keys, &args).await?;
        answer::check(&answer, client)
            .ok_or_else(|| unreadable("the record of a challenge, a budget or a bucket"))
    }

    /// Verifies where the client is on another server than the mailbox.
    pub(super) async fn verify_apart(
        &self,
        request: &VerifyRequest,
        client: &Client,
    ) -> Result<Check, StoreError> {
        let begin = Instant::now();
        let answer = self.reserve(client, Reserved::Failure).await?;
        let (wait, mut stands) = (answer.wait, client.failure_quota(answer.stands.into_iter()));
        if !wait.is_zero() {
            return Ok(Check {
                client: stands,
                ..Check::refused(wait)
            });
        }
        let check = self.in_time(begin, self.verify_with(request, None)).await;
        let back = match check.as_ref().map(|check| check.verdict) {
            Ok(Verdict::Correct) => Some(Reserved::Failure),
            Ok(Verdict::Repeated) | Err(_) => Some(Reserved::Repetition),
            Ok(_) => None,
        };
        // What was decided is told whatever becomes of the client: a right code is used up.
        if let Some(back) = back
            && let Ok(answer) = self.unreserve(client, back).await
        {
            stands = client.failure_quota(answer.stands.into_iter());
        }
        Ok(Check {
            client: stands,
            ..check?
        })
    }

    /// Admits in one step, with the client or without one. Who is known to be refused for a while is
    /// told so, unless the request is a repetition.
    pub(super) async fn admit_with(
        &self,
        request: &AdmitRequest,
        client: Option<&Client>,
        refused_for: Duration,
    ) -> Result<Admitted, StoreError> {
        let mut keys = self.request_keys(request);
        keys.extend(client.into_iter().flat_map(Client::keys));
        if keys.is_empty() {
            return Ok(Admission::Granted.into());
        }
        let (fingerprint, id) = match &request.repeatable {
            Some(repeatable) => (&repeatable.fingerprint.0[..], repeatable.id.as_str()),
            None => Default::default(),
        };
        let args = [
            self.injected_now(),
            request.challenge.0.to_vec(),
            Mailbox::of(request.limit).0.to_vec(),
            fingerprint.to_vec(),
            id.as_bytes().to_vec(),
            number(millis(refused_for)),
        ];
        let answer: Vec<Value> = self.invoke(&self.scripts.admit, &keys, &args).await?;
        answer::admitted(answer, client)
            .ok_or_else(|| unreadable("a budget, a bucket or what came of a request"))
    }

    /// Admits where the client is on another server than the mailbox.
    pub(super) async fn admit_apart(
        &self,
        request: &AdmitRequest,
        client: &Client,
    ) -> Result<Admitted, StoreError> {
        let begin = Instant::now();
        let answer = self.reserve(client, Reserved::Generate).await?;
        let (wait, mut stands) = (
            answer.wait,
            client.generate_quotas(answer.stands.into_iter()),
        );
        if !wait.is_zero() && request.repeatable.is_none() {
            return Ok(Admitted {
                admission: Admission::ClientRefused { retry_after: wait },
                client: stands,
            });
        }
        let asked = self.admit_with(request, None, wait);
        let admitted = self.in_time(begin, asked).await;
        let is_granted = matches!(&admitted, Ok(answer) if answer.admission == Admission::Granted);
        let is_charged = wait.is_zero() && !is_granted;
        // What can't be given back stays charged for an hour, which lets nobody ask for more.
        if is_charged && let Ok(answer) = self.unreserve(client, Reserved::Generate).await {
            stands = client.generate_quotas(answer.stands.into_iter());
        }
        Ok(Admitted {
            client: stands,
            ..admitted?
        })
    }

    /// Takes a mail back in one step, with the client or without one.
    pub(super) async fn give_back_with(
        &self,
        request: &AdmitRequest,
        client: Option<&Client>,
    ) -> Result<(), StoreError> {
        let mut keys = self.request_keys(request);
        keys.extend(client.into_iter().flat_map(Client::keys));
        if keys.is_empty() {
            return Ok(());
        }
        let repeatable = request.repeatable.as_ref();
        let args = [
            self.injected_now(),
            request.challenge.0.to_vec(),
            Mailbox::of(request.limit).0.to_vec(),
            repeatable.map_or_else(Vec::new, |request| request.id.as_bytes().to_vec()),
        ];
        match self.invoke(&self.scripts.give_back, &keys, &args).await? {
            1_i64 => Ok(()),
            _ => Err(unreadable("a budget, a bucket or what came of a request")),
        }
    }

    /// Takes a mail back where the client is on another server than the mailbox: what one of them
    /// can't be told keeps nothing from the other.
    pub(super) async fn give_back_apart(
        &self,
        request: &AdmitRequest,
        client: &Client,
    ) -> Result<(), StoreError> {
        let (of_client, of_mailbox) = tokio::join!(
            self.unreserve(client, Reserved::Generate),
            self.give_back_with(request, None)
        );
        of_client.and(of_mailbox)
    }

    /// The mailbox's answer, if it comes while a client that was charged at `begin` can still get
    /// back what it was charged with: whoever asks waits for both no longer than for one command.
    async fn in_time<T>(
        &self,
        begin: Instant,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let span = self.link.deadline() * 3 / 4;
        tokio::time::timeout_at(begin + span, answer)
            .await
            .unwrap_or_else(|_elapsed| Err(LinkError::NoAnswer(span).into()))
    }

    async fn reserve(&self, client: &Client, what: Reserved) -> Result<Answer, StoreError> {
        self.ask(&self.scripts.client_reserve, client, what).await
    }

    /// Takes back what was reserved; if it is a failure, the code is right, and the newest code
    /// asked for is given back with it, unless that was done before.
    async fn unreserve(&self, client: &Client, what: Reserved) -> Result<Answer, StoreError> {
        self.ask(&self.scripts.client_give_back, client, what).await
    }

    async fn ask(
        &self,
        script: &Script,
        client: &Client,
        what: Reserved,
    ) -> Result<Answer, StoreError> {
        let args = [
            self.injected_now(),
            client.mailbox.0.to_vec(),
            match what {
                Reserved::Generate => b"generate".to_vec(),
                Reserved::Failure => b"failure".to_vec(),
                Reserved::Repetition => b"repetition".to_vec(),
            },
        ];
        let answer: Vec<Value> = self.invoke(script, &client.keys(), &args).await?;
        let mut parts = answer.into_iter();
        let wait = parts.next().and_then(duration);
        Ok(Answer {
            wait: wait.ok_or_else(|| unreadable("a bucket of a client"))?,
            stands: parts.collect(),
        })
    }
}
