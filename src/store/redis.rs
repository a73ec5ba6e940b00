//! The store in Redis, for any number of processes.
//!
//! Every decision is one script beside the data. All keys of one mailbox share a hash tag, so that
//! a script has them on one node of a cluster; each is written with its TTL in the same step. The
//! form of the values stands in `record.lua`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{ErrorKind, FromRedisValue, ServerErrorKind, Value};

use super::{
    Admission, AdmitRequest, AttestError, Cause, Check, EndState, Ending, Evaluated, IssueRequest,
    Issued, KEY_MEMORY, OtpStore, REQUEST_MEMORY, StoreError, Verdict, VerifyRequest,
};
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::clock::{Clock, UnixMillis, millis};
use crate::otp::code::Nonce;
use crate::otp::keys::{KeyId, KeyMarks};
use crate::otp::policy::{
    FAILURES_PER_CLIENT_PER_DAY, LIVE_CODES, Policy, RETRY_MARGIN, Resend, STEPPED_DIGITS,
    STEPPED_FAILURES_PER_DAY, SUPERSEDE_MARGIN, StepUp,
};
use crate::redis_link::{LinkError, RedisLink, Script};

/// The version byte of every value.
const VERSION: u8 = 1;

/// Where the notes of the keys are; all processes share them.
const MARKS: &str = "otpost:{keys}:marks";

/// The store that processes share; clones share the link.
#[derive(Clone)]
pub struct RedisStore {
    link: RedisLink,
    policy: Policy,
    clock: Option<Arc<dyn Clock>>,
    scripts: Arc<Scripts>,
}

struct Scripts {
    issue: Script,
    verify: Script,
    admit: Script,
    give_back: Script,
    attest: Script,
    unconfirmed: Script,
}

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(
            include_str!("record.lua"),
            "\n",
            include_str!("budget.lua"),
            "\n",
            include_str!($file)
        ))
    };
}

impl RedisStore {
    /// A store that lives by the server's time.
    pub fn new(link: RedisLink, policy: Policy) -> Self {
        Self {
            link,
            policy,
            clock: None,
            scripts: Arc::new(Scripts {
                issue: script!("issue.lua"),
                verify: script!("verify.lua"),
                admit: script!("admit.lua"),
                give_back: script!("give_back.lua"),
                attest: script!("attest.lua"),
                unconfirmed: script!("unconfirmed.lua"),
            }),
        }
    }

    /// A store that lives by this clock: for tests, since the clocks of processes differ.
    pub fn with_clock(link: RedisLink, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock: Some(clock),
            ..Self::new(link, policy)
        }
    }

    /// The time that a script takes in place of the server's, or nothing.
    fn injected_now(&self) -> Vec<u8> {
        self.clock
            .as_ref()
            .map_or_else(Vec::new, |clock| number(clock.now().0))
    }

    /// The limits as the scripts read them, or nothing without limits.
    fn limits(&self) -> Vec<u8> {
        let Some(limits) = self.policy.limits else {
            return Vec::new();
        };
        let numbers = [
            millis(limits.cooldown),
            u64::from(limits.per_hour),
            u64::from(limits.per_day),
            u64::from(limits.failures_per_hour),
            u64::from(limits.failures_per_day),
            u64::from(limits.failures_per_month),
            u64::from(STEPPED_FAILURES_PER_DAY),
            u64::from(FAILURES_PER_CLIENT_PER_DAY),
        ];
        numbers.map(|each| each.to_string()).join(" ").into_bytes()
    }

    /// What a decision about a code reads and writes. A cluster on which the slot is on the move
    /// answers scripts with several keys only when it has arrived.
    fn keys(&self, limit: LimitId, challenge: ChallengeId) -> Vec<String> {
        let budget = self.policy.limits.map(|_| budget_key(limit));
        let record = format!("otpost:{{{limit}}}:c:{challenge}");
        std::iter::once(record).chain(budget).collect()
    }

    async fn invoke<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<T, StoreError> {
        Ok(self.link.invoke(script, keys, args).await?)
    }
}

#[async_trait]
impl OtpStore for RedisStore {
    async fn attest(&self, marks: &KeyMarks) -> Result<(), AttestError> {
        let mut args = vec![
            self.injected_now(),
            number(millis(KEY_MEMORY)),
            marks.address.to_vec(),
        ];
        args.extend(marks.master.iter().map(|id| id.0.to_vec()));
        let keys = [MARKS.to_owned()];
        let answer: String = self.invoke(&self.scripts.attest, &keys, &args).await?;
        match answer.as_str() {
            "known" => Ok(()),
            "other_address_key" => Err(AttestError::OtherAddressKey),
            "other_master_key" => Err(AttestError::OtherMasterKey),
            _ => Err(unreadable("the notes of the keys").into()),
        }
    }

    async fn issue(&self, request: &IssueRequest) -> Result<Issued, StoreError> {
        let candidate = &request.candidate;
        let args = [
            self.injected_now(),
            number(millis(self.policy.lifetime)),
            word(self.policy.resend),
            number(LIVE_CODES as u64),
            number(millis(RETRY_MARGIN)),
            number(millis(SUPERSEDE_MARGIN)),
            request.job.as_bytes().to_vec(),
            number(request.requested_at.0),
            candidate.nonce.0.to_vec(),
            candidate.tag.0.to_vec(),
            candidate.key_id.0.to_vec(),
            number(u64::from(candidate.digits)),
            request.stepped_tag.0.to_vec(),
            number(u64::from(STEPPED_DIGITS)),
            step_up(self.policy.step_up),
            self.limits(),
        ];
        let keys = self.keys(request.limit, request.challenge);
        let answer: Vec<Value> = self.invoke(&self.scripts.issue, &keys, &args).await?;
        issued(answer).ok_or_else(|| unreadable("the record of a challenge"))
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<Check, StoreError> {
        let mut args = vec![
            self.injected_now(),
            number(millis(self.policy.lifetime)),
            number(u64::from(self.policy.attempts)),
            self.limits(),
            request
                .client
                .map_or_else(Vec::new, |client| client.0.to_vec()),
        ];
        for (key_id, tag) in &request.tags {
            args.push(key_id.0.to_vec());
            args.push(tag.0.to_vec());
        }
        let keys = self.keys(request.limit, request.challenge);
        let answer: Vec<Value> = self.invoke(&self.scripts.verify, &keys, &args).await?;
        check(answer).ok_or_else(|| unreadable("the record of a challenge or a budget"))
    }

    async fn admit(&self, request: &AdmitRequest) -> Result<Admission, StoreError> {
        if self.policy.limits.is_none() {
            return Ok(Admission::Granted);
        }
        let args = [
            self.injected_now(),
            self.limits(),
            request.challenge.to_string().into_bytes(),
        ];
        let keys = [budget_key(request.limit)];
        let wait_ms: i64 = self.invoke(&self.scripts.admit, &keys, &args).await?;
        match u64::try_from(wait_ms) {
            Ok(0) => Ok(Admission::Granted),
            Ok(wait_ms) => Ok(Admission::Refused {
                retry_after: Duration::from_millis(wait_ms),
            }),
            Err(_negative) => Err(unreadable("a budget")),
        }
    }

    async fn give_back(&self, request: &AdmitRequest) -> Result<(), StoreError> {
        if self.policy.limits.is_none() {
            return Ok(());
        }
        let args = [
            self.injected_now(),
            request.challenge.to_string().into_bytes(),
        ];
        let keys = [budget_key(request.limit)];
        match self.invoke(&self.scripts.give_back, &keys, &args).await? {
            1_i64 => Ok(()),
            _ => Err(unreadable("a budget")),
        }
    }

    /// The value is the version byte and the ending as JSON.
    async fn finish(&self, id: &str, ending: Ending) -> Result<(), StoreError> {
        let mut value = vec![VERSION];
        serde_json::to_writer(&mut value, &ending)
            .map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let mut command = redis::cmd("SET");
        command.arg(request_key(id)).arg(value);
        if ending.state != EndState::Sent {
            command.arg("NX");
        }
        command.arg("PX").arg(millis(REQUEST_MEMORY));
        self.link.query::<Value>(&command).await?;
        Ok(())
    }

    async fn ending(&self, id: &str) -> Result<Option<Ending>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(request_key(id));
        let value: Option<Vec<u8>> = self.link.query(&command).await?;
        match value.as_deref() {
            None => Ok(None),
            Some([VERSION, json @ ..]) => match serde_json::from_slice(json) {
                Ok(ending) => Ok(Some(ending)),
                Err(_) => Err(unreadable("the ending of a request")),
            },
            Some(_) => Err(unreadable("the ending of a request")),
        }
    }

    async fn count_unconfirmed(&self, job: &str) -> Result<u32, StoreError> {
        let keys = [format!("{}:u", request_key(job))];
        let args = [number(millis(REQUEST_MEMORY))];
        let counted: i64 = self.invoke(&self.scripts.unconfirmed, &keys, &args).await?;
        u32::try_from(counted).map_err(|_negative| unreadable("a count of unconfirmed mails"))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.link.ping().await?)
    }
}

impl From<LinkError> for StoreError {
    fn from(error: LinkError) -> Self {
        match &error {
            LinkError::Nonsense(_) => Self::Unreadable(error.to_string()),
            // A script met something that it can't work with.
            LinkError::Failed(cause)
                if cause.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) =>
            {
                Self::Unreadable(error.to_string())
            }
            LinkError::Failed(_) | LinkError::NoAnswer(_) => Self::Unavailable(error.to_string()),
        }
    }
}

fn budget_key(limit: LimitId) -> String {
    format!("otpost:{{{limit}}}:a")
}

fn request_key(id: &str) -> String {
    format!("otpost:{{r:{id}}}")
}

fn number(value: u64) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn word(resend: Resend) -> Vec<u8> {
    match resend {
        Resend::Keep => b"keep".to_vec(),
        Resend::Rotate => b"rotate".to_vec(),
    }
}

fn step_up(step_up: StepUp) -> Vec<u8> {
    match step_up {
        StepUp::Digits8 => b"digits8".to_vec(),
        StepUp::Block => b"block".to_vec(),
    }
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Unreadable(what.to_owned())
}

/// Reads what `verify.lua` answers; anything else than it promises is nothing.
fn check(answer: Vec<Value>) -> Option<Check> {
    let mut parts = answer.into_iter();
    let outcome = String::from_redis_value(parts.next()?).ok()?;
    let verdict = match outcome.as_str() {
        "correct" => Verdict::Correct,
        "wrong" => Verdict::Incorrect(Cause::Wrong),
        "no_live_code" => Verdict::Incorrect(Cause::NoLiveCode),
        "budget_spent" => Verdict::Incorrect(Cause::BudgetSpent),
        _ => return None,
    };
    Some(Check {
        verdict,
        evaluated: Evaluated {
            normal: u8::from_redis_value(parts.next()?).ok()?,
            stepped: u8::from_redis_value(parts.next()?).ok()?,
        },
    })
}

/// Reads what `issue.lua` answers; anything else than it promises is nothing.
fn issued(answer: Vec<Value>) -> Option<Issued> {
    let mut parts = answer.into_iter();
    let outcome = String::from_redis_value(parts.next()?).ok()?;
    match outcome.as_str() {
        "superseded" => return Some(Issued::Superseded),
        "too_old" => return Some(Issued::TooOld),
        "blocked" => return Some(Issued::Blocked),
        "live" => {}
        _ => return None,
    }
    let nonce = Vec::<u8>::from_redis_value(parts.next()?).ok()?;
    let key_id = Vec::<u8>::from_redis_value(parts.next()?).ok()?;
    let digits = u8::from_redis_value(parts.next()?).ok()?;
    let expires_at = u64::from_redis_value(parts.next()?).ok()?;
    let now = u64::from_redis_value(parts.next()?).ok()?;
    Some(Issued::Live {
        nonce: Nonce(nonce.try_into().ok()?),
        key_id: KeyId(key_id.try_into().ok()?),
        digits,
        expires_at: UnixMillis(expires_at),
        now: UnixMillis(now),
    })
}
