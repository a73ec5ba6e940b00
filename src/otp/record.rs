//! What a store remembers of one challenge, and the two decisions over it: `issue` and `verify`.
//!
//! A store runs each decision as one atomic step. The SQLite store runs this code; the Redis store
//! runs the same rules as a script beside the data, and one contract suite holds both to them.

use std::time::Duration;

mod live_code;
mod replay;

use super::address::{ChallengeId, LimitId};
use super::budget::{Budget, Class, Evaluated, Failure};
use super::client_budget::{ClientBuckets, Quota};
use super::clock::UnixMillis;
use super::code::{Nonce, Tag};
use super::idempotency::IdempotencyId;
use super::keys::KeyId;
use super::policy::{CLOCK_STEP, Policy, Resend, STEPPED_DIGITS, SUPERSEDE_MARGIN, StepUp};

use self::live_code::{code_not_to_rotate, code_to_keep};

pub use self::live_code::LiveCode;
pub use self::replay::{REPLAY_TIME, Replay};

/// A code that a processor proposes; it comes alive unless another one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What the code is derived from.
    pub nonce: Nonce,
    /// What the code is compared by.
    pub tag: Tag,
    /// The key that made it.
    pub key_id: KeyId,
    /// Its length.
    pub digits: u8,
}

/// Asks for the code of a challenge on behalf of a job.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    /// The mailbox that budgets belong to.
    pub limit: LimitId,
    /// The address and context that the code is for.
    pub challenge: ChallengeId,
    /// The job that asks.
    pub job: String,
    /// When the job was requested.
    pub requested_at: UnixMillis,
    /// The code that comes alive if none is.
    pub candidate: Candidate,
    /// The tag of the stepped-up code that belongs to the same nonce: it takes the place of the
    /// candidate's where the mailbox has spent its failures.
    pub stepped_tag: Tag,
    /// Whether a code that comes alive is stepped up, whatever the mailbox has spent.
    pub must_step_up: bool,
}

/// The answer to [`IssueRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issued {
    /// Mail the code that belongs to this nonce.
    Live {
        /// What the live code is derived from.
        nonce: Nonce,
        /// The key that it was made with.
        key_id: KeyId,
        /// Its length.
        digits: u8,
        /// When it ends.
        expires_at: UnixMillis,
        /// The store's time of this answer.
        now: UnixMillis,
    },
    /// A success came after the request: mail nothing.
    Superseded,
    /// The request is older than a code's lifetime: mail nothing.
    TooOld,
    /// The mailbox has spent its failures, and no code that it may have would be compared: mail
    /// nothing.
    Blocked,
}

/// Asks whether a code is right.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The mailbox that budgets belong to.
    pub limit: LimitId,
    /// The address and context that the code is for.
    pub challenge: ChallengeId,
    /// The tag of the code that was typed, under every listed key.
    pub tags: Vec<(KeyId, Tag)>,
    /// The client, if it is known: it has failures of its own, and alone it spends no mailbox's.
    pub client: Option<ClientBuckets>,
    /// Set if the client may repeat the request: a success under this key is answered again.
    pub idempotency: Option<IdempotencyId>,
}

/// A verdict, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The answer.
    pub verdict: Verdict,
    /// The live codes that a wrong code was compared with; none if it was not wrong.
    pub evaluated: Evaluated,
    /// How many wrong attempts at the codes that it used up a right one followed; none if it was
    /// not right.
    pub resolved: u32,
    /// How the client stands after it, if clients are limited.
    pub client: Option<Quota>,
}

/// The answer to [`VerifyRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The code is right; it and its sibling are used up now.
    Correct,
    /// It was right just before, under the same idempotency key.
    Repeated,
    /// Another code was right just before, under the same idempotency key.
    KeyReused,
    /// It is not; why is for the metrics, never for the client.
    Incorrect(Cause),
    /// The client has had its failures, and the code was not looked at.
    Refused {
        /// When one may be, if the client fails no more until then.
        retry_after: Duration,
    },
}

/// Why a code is incorrect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was compared with live codes and counted as an attempt.
    Wrong,
    /// No code is alive: expired, used, never issued, or its attempts are spent.
    NoLiveCode,
    /// It was compared with nothing, since a budget of failures is spent.
    BudgetSpent,
}

/// All that a store remembers of one challenge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Codes, oldest first; never more than two of them alive.
    pub codes: Vec<LiveCode>,
    /// Wrong attempts against the live codes; no resend resets them.
    pub attempts: u32,
    /// When a code was last right, and until when this is remembered.
    pub success: Option<Success>,
}

/// A right code, remembered for one lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success {
    /// When it was right.
    pub at: UnixMillis,
    /// Until when it is remembered.
    pub until: UnixMillis,
    /// Set for a while if the client may repeat the request.
    pub replay: Option<Replay>,
}

impl IssueRequest {
    fn candidate_of(&self, class: Class) -> Candidate {
        let normal = self.candidate.clone();
        match class {
            Class::Normal => normal,
            Class::Stepped => Candidate {
                tag: self.stepped_tag,
                digits: STEPPED_DIGITS,
                ..normal
            },
        }
    }
}

impl Check {
    /// A verdict that took no comparison with a live code, or a right one.
    fn free(verdict: Verdict) -> Self {
        Self {
            verdict,
            evaluated: Evaluated::default(),
            resolved: 0,
            client: None,
        }
    }

    fn incorrect(cause: Cause) -> Self {
        Self::free(Verdict::Incorrect(cause))
    }

    /// The client has had its failures, for so long.
    pub fn refused(retry_after: Duration) -> Self {
        Self::free(Verdict::Refused { retry_after })
    }
}

impl Record {
    /// Decides which code a job may mail, making one if need be.
    pub fn issue(
        &mut self,
        budget: &Budget,
        policy: &Policy,
        now: UnixMillis,
        request: &IssueRequest,
    ) -> Issued {
        let requested_at = request.requested_at.min(now);
        self.forget_what_is_over(now);
        if self
            .success
            .is_some_and(|success| requested_at < success.at.before(SUPERSEDE_MARGIN))
        {
            return Issued::Superseded;
        }
        if requested_at.after(policy.lifetime) <= now {
            return Issued::TooOld;
        }
        let is_open = |class| budget.is_open(class, policy.limits.as_ref(), now);
        let has_spent = !is_open(Class::Normal);
        if has_spent && policy.step_up == StepUp::Block {
            return Issued::Blocked;
        }
        // What is spent is not compared: a code that nobody may use must not be mailed.
        let usable = || self.codes.iter().filter(|code| is_open(code.class));
        let existing = match policy.resend {
            Resend::Keep => code_to_keep(usable(), now, &request.job),
            Resend::Rotate => code_not_to_rotate(usable(), now, &request.job, requested_at),
        };
        if let Some(code) = existing {
            return code.answer(now);
        }
        let class = if has_spent || request.must_step_up {
            Class::Stepped
        } else {
            Class::Normal
        };
        if !is_open(class) {
            return Issued::Blocked;
        }
        self.codes
            .retain(|code| policy.resend == Resend::Keep && is_open(code.class));
        let code = LiveCode {
            candidate: request.candidate_of(class),
            made_at: now,
            expires_at: now.after(policy.lifetime),
            class,
            job: request.job.clone(),
            requested_at,
        };
        let answer = code.answer(now);
        self.codes.push(code);
        answer
    }

    /// Decides whether a code is right; counts the attempt and the failure, or uses the codes up.
    pub fn verify(
        &mut self,
        budget: &mut Budget,
        policy: &Policy,
        now: UnixMillis,
        request: &VerifyRequest,
    ) -> Check {
        self.forget_what_is_over(now);
        if let Some(verdict) = self.repeat(policy, request) {
            return Check::free(verdict);
        }
        if self.codes.is_empty() {
            return Check::incorrect(Cause::NoLiveCode);
        }
        let limits = policy.limits.as_ref();
        let client = request.client.map(|client| client.own());
        let has_share = budget.has_share(client, limits, now);
        let compared: Vec<&LiveCode> = self
            .codes
            .iter()
            .filter(|code| has_share && budget.is_open(code.class, limits, now))
            .collect();
        if compared.is_empty() {
            return Check::incorrect(Cause::BudgetSpent);
        }
        // All are compared, whatever is found.
        let right = compared.iter().fold(None, |found, code| {
            found.or(request.is_for(&code.candidate).then_some(*code))
        });
        if let Some(code) = right {
            let replay = request.replay_of(&code.candidate, now);
            let resolved = self.attempts;
            self.end_codes();
            self.success = Some(Success {
                at: now,
                until: now.after(policy.lifetime),
                replay,
            });
            return Check {
                resolved,
                ..Check::free(Verdict::Correct)
            };
        }
        let evaluated = Evaluated::of(compared.iter().map(|code| code.class));
        self.attempts += 1;
        if self.attempts >= policy.attempts {
            self.end_codes();
        }
        if limits.is_some() {
            budget.charge(Failure {
                at: now,
                client,
                evaluated,
            });
        }
        Check {
            verdict: Verdict::Incorrect(Cause::Wrong),
            evaluated,
            resolved: 0,
            client: None,
        }
    }

    /// When nothing of the record matters any more.
    pub fn ends_at(&self) -> Option<UnixMillis> {
        let codes = self.codes.iter().map(|code| code.expires_at);
        codes.chain(self.success.map(|success| success.until)).max()
    }

    fn forget_what_is_over(&mut self, now: UnixMillis) {
        let latest = now.after(CLOCK_STEP);
        self.codes
            .retain(|code| code.expires_at > now && code.made_at <= latest);
        if self.codes.is_empty() {
            self.attempts = 0;
        }
        self.success = self
            .success
            .filter(|success| success.until > now && success.at <= latest);
        if let Some(success) = &mut self.success {
            success.replay = success.replay.filter(|replay| replay.until > now);
        }
    }

    fn end_codes(&mut self) {
        self.codes.clear();
        self.attempts = 0;
    }
}
