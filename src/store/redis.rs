//! The store in Redis, for any number of processes.
//!
//! Every decision is one script beside the data. All keys of one mailbox share a hash tag, so that
//! a script has them on one node of a cluster; each is written with its TTL in the same step. The
//! forms of the values stand in `values.lua`.

mod answer;
mod client;
mod pace;
mod scripts;
mod unresolved;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{ErrorKind, FromRedisValue, ServerErrorKind, Value};

use super::{
    AdmitRequest, Admitted, AttestError, Check, Durability, EndState, Ending, History,
    IdempotencyId, IssueRequest, Issued, KEY_MEMORY, OtpStore, Pace, PaceName, Paced,
    REQUEST_MEMORY, Repeatable, StoreError, VerifyRequest,
};
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::clock::{Clock, UnixMillis, millis};
use crate::otp::keys::KeyMarks;
use crate::otp::policy::Policy;
use crate::redis_link::{LinkError, RedisLink, Script};

use self::scripts::Scripts;

/// The first byte of an ending.
const VERSION: u8 = 1;

/// A job is remembered by so many octets of its id, since another program may make ids of any length.
const LONGEST_ID: usize = 65_535;

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

impl RedisStore {
    /// A store that lives by the server's time.
    pub fn new(link: RedisLink, policy: Policy) -> Self {
        Self {
            link,
            policy,
            clock: None,
            scripts: Arc::new(Scripts::new(&policy)),
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

    /// What a decision about a code reads and writes. A cluster on which the slot is on the move
    /// answers scripts with several keys only when it has arrived.
    fn keys(&self, limit: LimitId, challenge: ChallengeId) -> Vec<String> {
        let budget = self.policy.limits.map(|_| budget_key(limit));
        let record = format!("otpost:{{{limit}}}:c:{challenge}");
        std::iter::once(record).chain(budget).collect()
    }

    /// What a decision about a request reads and writes.
    fn request_keys(&self, request: &AdmitRequest) -> Vec<String> {
        let budget = self.policy.limits.map(|_| budget_key(request.limit));
        let repeatable = request.repeatable.as_ref();
        let remembered = repeatable.map(|repeatable| repeat_key(request.limit, repeatable.key));
        budget.into_iter().chain(remembered).collect()
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
        let (candidate, job) = (&request.candidate, request.job.as_bytes());
        let args = [
            self.injected_now(),
            job[..job.len().min(LONGEST_ID)].to_vec(),
            number(request.requested_at.0),
            candidate.nonce.0.to_vec(),
            candidate.tag.0.to_vec(),
            candidate.key_id.0.to_vec(),
            number(u64::from(candidate.digits)),
            request.stepped_tag.0.to_vec(),
            number(u64::from(request.must_step_up)),
        ];
        let keys = self.keys(request.limit, request.challenge);
        let answer: Vec<Value> = self.invoke(&self.scripts.issue, &keys, &args).await?;
        answer::issued(answer).ok_or_else(|| unreadable("the record of a challenge"))
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<Check, StoreError> {
        match self.client(request.client, request.limit) {
            Some(client) if self.link.is_cluster() => self.verify_apart(request, &client).await,
            client => self.verify_with(request, client.as_ref()).await,
        }
    }

    async fn admit(&self, request: &AdmitRequest) -> Result<Admitted, StoreError> {
        match self.client(request.client, request.limit) {
            Some(client) if self.link.is_cluster() => self.admit_apart(request, &client).await,
            client => {
                let client = client.as_ref();
                self.admit_with(request, client, Duration::ZERO).await
            }
        }
    }

    async fn give_back(&self, request: &AdmitRequest) -> Result<(), StoreError> {
        match self.client(request.client, request.limit) {
            Some(client) if self.link.is_cluster() => self.give_back_apart(request, &client).await,
            client => self.give_back_with(request, client.as_ref()).await,
        }
    }

    async fn note_enqueued(&self, request: &Repeatable, limit: LimitId) -> Result<(), StoreError> {
        let keys = [repeat_key(limit, request.key)];
        let args = [self.injected_now(), request.id.as_bytes().to_vec()];
        match self.invoke(&self.scripts.enqueued, &keys, &args).await? {
            1_i64 => Ok(()),
            _ => Err(unreadable("what came of a request")),
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

    async fn pace(&self, pace: &Pace) -> Result<Paced, StoreError> {
        pace::ask(self, pace).await
    }

    async fn give_back_pace(&self, name: PaceName, at: UnixMillis) -> Result<(), StoreError> {
        pace::give_back(self, name, at).await
    }

    async fn note_unresolved(&self, failures: i64) -> Result<History, StoreError> {
        unresolved::note(self, failures).await
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(self.link.durability().await?)
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

fn repeat_key(limit: LimitId, key: IdempotencyId) -> String {
    let key = data_encoding::HEXLOWER.encode(&key.0);
    format!("otpost:{{{limit}}}:i:{key}")
}

fn request_key(id: &str) -> String {
    format!("otpost:{{r:{id}}}")
}

fn number(value: u64) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Unreadable(what.to_owned())
}
