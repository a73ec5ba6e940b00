//! The store: what outlives a request. Two backends, `redis` and `sqlite`, one contract, held to
//! it by one suite of tests.
//!
//! `issue` and `verify` are one atomic step each, are durable before they answer, and are never
//! sent again by themselves after an unknown outcome. Time is the store's own. Only when a job was
//! asked for is told by the process that took it, and matters for a success just before it.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::otp::address::LimitId;
pub use crate::otp::breaker::History;
pub use crate::otp::budget::{Admission, AdmitRequest, Admitted, Evaluated};
pub use crate::otp::client_budget::{ClientBuckets, GenerateQuotas, Quota};
use crate::otp::clock::UnixMillis;
pub use crate::otp::idempotency::{IdempotencyId, Repeatable, Repetition};
use crate::otp::keys::KeyMarks;
pub use crate::otp::pace::{Pace, PaceName, Paced};
pub use crate::otp::record::{
    Candidate, Cause, Check, IssueRequest, Issued, Verdict, VerifyRequest,
};
pub use crate::redis_link::{Durability, DurabilityLevel};

pub mod redis;
pub mod sqlite;

/// How long it is remembered how a request ended, and how many of its mails are unconfirmed.
const REQUEST_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a key counts as known to the data after a process last attested it: longer than any
/// data that was made with it lives.
const KEY_MEMORY: Duration = Duration::from_secs(40 * 24 * 60 * 60);

/// What the API and the processor ask of a store.
#[async_trait]
pub trait OtpStore: Send + Sync {
    /// Checks that the data was made with these keys, and notes them. To be called at start and
    /// at least every day, since a note that nobody renews fades after 40 days.
    async fn attest(&self, marks: &KeyMarks) -> Result<(), AttestError>;

    /// Decides whether one more mail may be sent, and counts it then for mailbox and client: asked
    /// before a job is made. What one of the two refuses, the other is not charged with. A granted
    /// request that may be repeated is remembered in the same step.
    async fn admit(&self, request: &AdmitRequest) -> Result<Admitted, StoreError>;

    /// Takes back the newest mail that was counted for a challenge and its client, when no job came
    /// of it, and forgets a repeatable request.
    async fn give_back(&self, request: &AdmitRequest) -> Result<(), StoreError>;

    /// Notes that the job of a repeatable request for this mailbox is on the queue.
    async fn note_enqueued(&self, request: &Repeatable, limit: LimitId) -> Result<(), StoreError>;

    /// Decides which code a job may mail, making one if need be.
    async fn issue(&self, request: &IssueRequest) -> Result<Issued, StoreError>;

    /// Decides whether a code is right, and charges the mailbox with a wrong one in the same step;
    /// writes the record and the budget once, whatever the answer. The client is charged with every code
    /// that is not right; once it has had its failures, no code is looked at and nothing written.
    async fn verify(&self, request: &VerifyRequest) -> Result<Check, StoreError>;

    /// Notes how a request ended, for a day. The first ending stands, but for a mail that is sent
    /// after all, when an operator had a failed job run again.
    async fn finish(&self, id: &str, ending: Ending) -> Result<(), StoreError>;

    /// How a request ended, if it did within the last day.
    async fn ending(&self, id: &str) -> Result<Option<Ending>, StoreError>;

    /// Counts one more mail of this job whose acceptance is unknown; tells how many there are now.
    async fn count_unconfirmed(&self, job: &str) -> Result<u32, StoreError>;

    /// Decides whether one more mail is within a pace, and counts it then.
    async fn pace(&self, pace: &Pace) -> Result<Paced, StoreError>;

    /// Takes back the mail that was counted under this name at that instant, since it was not sent.
    async fn give_back_pace(&self, name: PaceName, at: UnixMillis) -> Result<(), StoreError>;

    /// Adds to the wrong codes of the whole service that no success followed, or takes away those
    /// that one has followed since; tells what they come to.
    async fn note_unresolved(&self, failures: i64) -> Result<History, StoreError>;
    /// What becomes of a write that was acknowledged, by the least that any node promises now.
    async fn durability(&self) -> Result<Durability, StoreError>;

    /// Answers when the store can be used.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// How and when a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// How.
    pub state: EndState,
    /// When it was requested.
    pub requested_at: UnixMillis,
    /// When it ended.
    pub ended_at: UnixMillis,
}

/// The one end that each accepted request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    /// The mail server took the mail.
    Sent,
    /// The mail server refused the recipient or the content.
    Undeliverable,
    /// The code's lifetime passed before a mail server took the mail.
    Expired,
    /// The person had succeeded with an earlier mail.
    Superseded,
    /// The mailbox has spent its failures, and no code that it may have would be compared.
    Blocked,
}

impl EndState {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Sent,
        Self::Undeliverable,
        Self::Expired,
        Self::Superseded,
        Self::Blocked,
    ];

    /// The word for it in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Undeliverable => "undeliverable",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Blocked => "blocked",
        }
    }
}

/// The store could not do what it was asked. Nothing may be taken as done or as right.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached, or did not answer in time; the outcome is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It holds something that this version does not understand, or answered nonsense.
    #[error("the store holds data that this version can't read: {0}")]
    Unreadable(String),
}

/// The keys could not be attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The address key is not the one that the data was made with.
    #[error(
        "`keys.address` is not the key that the data in the store was made with; set the key that belongs to it, or use an empty store"
    )]
    OtherAddressKey,
    /// None of the master keys is known to the data.
    #[error(
        "neither `keys.master` nor a key in `keys.previous` is known to the data in the store; list the former master key in `keys.previous`"
    )]
    OtherMasterKey,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
