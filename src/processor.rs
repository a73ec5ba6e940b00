//! One attempt at one job: find out which code to mail, mail it, say what becomes of the job.
//!
//! Issuing comes before mailing and always gives the same live code, so that a retry after any
//! accident mails that code again. Before both, the pace of the recipient's domain is asked: a job
//! that has to wait has no code yet, so that the one it mails in the end has its whole life before
//! it. Every job that the API accepted comes to exactly one end state.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::mailer::{MailError, Mailer, MessageId, OtpMail};
use crate::otp::address::LimitId;
use crate::otp::breaker::Breaker;
use crate::otp::clock::{Clock, UnixMillis};
use crate::otp::code::{Code, Entropy, Nonce};
use crate::otp::keys::{CodeKey, KeyRing};
use crate::otp::policy::{Policy, STEPPED_DIGITS, StepUp};
use crate::queue::Outcome;
use crate::queue::job::{Job, JobData, JobError, mask};
use crate::store::{
    Candidate, EndState, Ending, IssueRequest, Issued, OtpStore, Pace, PaceName, Paced, StoreError,
};
use crate::telemetry::Telemetry;

/// How many mails of one job may have an unknown outcome before it counts as sent.
const UNCONFIRMED_MAILS: u32 = 2;

/// Turns jobs into mails.
pub struct Processor {
    /// Decides which code is live.
    pub store: Arc<dyn OtpStore>,
    /// Sends it.
    pub mailer: Arc<Mailer>,
    /// Derive it.
    pub keys: Arc<KeyRing>,
    /// Says how long it is.
    pub policy: Policy,
    /// How many mails a minute go to one domain, if that is bounded.
    pub domain_per_minute: Option<u32>,
    /// Says whether codes are stepped up all over the service.
    pub breaker: Arc<Breaker>,
    /// Draws its nonce.
    pub entropy: Arc<dyn Entropy>,
    /// Tells when a request came to its end.
    pub clock: Arc<dyn Clock>,
    /// Counts the ends.
    pub telemetry: Arc<Telemetry>,
    /// How long after its start an attempt must know what became of its mail; what is left of the
    /// attempt then is for writing that down, without which a mail could go out again and again.
    pub mail_time: Duration,
}

/// What became of an attempt, and whether a mail server had to deal with its mail.
struct Attempted {
    outcome: Outcome,
    has_mailed: bool,
}

/// The place that a mail has in the pace of its domain.
struct Place {
    name: PaceName,
    at: UnixMillis,
}

/// The live code of a job and what the mail says of it.
struct Live<'a> {
    nonce: Nonce,
    key: &'a CodeKey,
    digits: u8,
    expires_at: UnixMillis,
    now: UnixMillis,
    until: Instant,
}

impl Processor {
    /// Does one attempt at a job.
    pub async fn process(&self, job: Job) -> Outcome {
        let until = Instant::now() + self.mail_time;
        let data = match JobData::parse(&job.data, &self.keys) {
            Ok(data) => data,
            Err(JobError::Newer) => return self.leave_to_a_newer_worker(&job).await,
            Err(error) => return fail(error.to_string()),
        };
        if job.attempt > 1 && self.is_sent(&job).await {
            return Outcome::Done;
        }
        let place = match self.take_place(&job, &data).await {
            Ok(place) => place,
            Err(outcome) => return outcome,
        };
        let attempted = self.issue_and_mail(&job, &data, until).await;
        if let Some(place) = place
            && !attempted.has_mailed
        {
            self.give_back(&place).await;
        }
        attempted.outcome
    }

    /// The job's place in the pace of its domain, if there is one; else what becomes of the job.
    async fn take_place(&self, job: &Job, data: &JobData) -> Result<Option<Place>, Outcome> {
        let Some(per_minute) = self.domain_per_minute else {
            return Ok(None);
        };
        let name = PaceName::domain(&self.keys, &data.email);
        let paced = self.store.pace(&Pace { name, per_minute }).await;
        match paced.map_err(|error| retry(&error))? {
            Paced::Now(at) => Ok(Some(Place { name, at })),
            Paced::Wait(_) if self.is_too_old(job) => Err(self.expire(job, data).await),
            Paced::Wait(after) => {
                self.telemetry.limit_refused("domain");
                Err(Outcome::Later {
                    reason: "the domain has had its mails of this minute".to_owned(),
                    after,
                })
            }
        }
    }

    /// Best effort: what is not given back makes room after a minute.
    async fn give_back(&self, place: &Place) {
        if let Err(error) = self.store.give_back_pace(place.name, place.at).await {
            self.telemetry.part_failed("store", &error);
        }
    }

    async fn issue_and_mail(&self, job: &Job, data: &JobData, until: Instant) -> Attempted {
        let issued = match self.issue(job, data).await {
            Ok(issued) => issued,
            Err(outcome) => return outcome.into(),
        };
        match issued {
            Issued::Superseded => {
                self.finish(job, &self.pseudonym(data), EndState::Superseded)
                    .await;
                Outcome::Done.into()
            }
            Issued::Blocked => {
                self.finish(job, &self.pseudonym(data), EndState::Blocked)
                    .await;
                Outcome::Done.into()
            }
            Issued::TooOld => self.expire(job, data).await.into(),
            Issued::Live {
                nonce,
                key_id,
                digits,
                expires_at,
                now,
            } => {
                let Some(key) = self.keys.find(key_id) else {
                    let reason = format!(
                        "the live code was made with key {key_id}, which is not listed here"
                    );
                    return Outcome::Retry { reason }.into();
                };
                let live = Live {
                    nonce,
                    key,
                    digits,
                    expires_at,
                    now,
                    until,
                };
                self.mail(job, data, &live).await
            }
        }
    }

    fn is_too_old(&self, job: &Job) -> bool {
        job.requested_at.after(self.policy.lifetime) <= self.clock.now()
    }

    async fn expire(&self, job: &Job, data: &JobData) -> Outcome {
        self.finish(job, &self.pseudonym(data), EndState::Expired)
            .await;
        fail("expired: the job is older than a code lives".to_owned())
    }

    /// A worker of that version may take it, as long as its code could still be used.
    async fn leave_to_a_newer_worker(&self, job: &Job) -> Outcome {
        if !self.is_too_old(job) {
            return retry(&JobError::Newer);
        }
        self.finish(job, "(unread)", EndState::Expired).await;
        Outcome::Fail {
            reason: format!("expired: {}", JobError::Newer),
        }
    }

    /// Whether an earlier attempt sent the mail, and only its acknowledgement to the queue was lost.
    async fn is_sent(&self, job: &Job) -> bool {
        let ending = self.store.ending(&job.id).await;
        ending.is_ok_and(|ending| ending.is_some_and(|ending| ending.state == EndState::Sent))
    }

    async fn issue(&self, job: &Job, data: &JobData) -> Result<Issued, Outcome> {
        let nonce = Nonce::draw(&*self.entropy).map_err(|error| retry(&error))?;
        let key = self.keys.current();
        let digits = self.policy.digits;
        let tag =
            |digits| Code::derive(key, nonce, data.challenge, digits).tag(key, data.challenge);
        let request = IssueRequest {
            limit: LimitId::of(&self.keys, &data.email),
            challenge: data.challenge,
            job: job.id.clone(),
            requested_at: job.requested_at,
            candidate: Candidate {
                nonce,
                tag: tag(digits),
                key_id: key.id(),
                digits,
            },
            stepped_tag: tag(STEPPED_DIGITS),
            must_step_up: self.policy.step_up == StepUp::Digits8 && self.breaker.is_open(),
        };
        self.store
            .issue(&request)
            .await
            .map_err(|error| retry(&error))
    }

    async fn mail(&self, job: &Job, data: &JobData, live: &Live<'_>) -> Attempted {
        let mail = OtpMail {
            to: data.email.clone(),
            code: Code::derive(live.key, live.nonce, data.challenge, live.digits),
            valid_for: live.expires_at.since(live.now),
            locale: data.locale.clone(),
            message_id: MessageId::new(&self.keys, &job.id, live.nonce),
            until: live.until,
        };
        let sent = self.mailer.send(&mail).await;
        let has_mailed = !matches!(sent, Err(MailError::Unavailable(_)));
        let outcome = match sent {
            Ok(()) => {
                self.finish(job, &self.pseudonym(data), EndState::Sent)
                    .await;
                Outcome::Done
            }
            Err(error @ MailError::Refused(_)) => {
                self.finish(job, &self.pseudonym(data), EndState::Undeliverable)
                    .await;
                fail(format!("undeliverable: {error}"))
            }
            Err(error @ MailError::Unavailable(_)) => retry(&error),
            Err(error @ MailError::Unconfirmed(_)) => self.unconfirmed(job, data, &error).await,
        };
        Attempted {
            outcome,
            has_mailed,
        }
    }

    /// The mail may have gone out: it is tried once more, then it counts as sent.
    async fn unconfirmed(&self, job: &Job, data: &JobData, error: &MailError) -> Outcome {
        self.telemetry.mail_unconfirmed(&mask(&job.id));
        match self.store.count_unconfirmed(&job.id).await {
            Ok(mails) if mails >= UNCONFIRMED_MAILS => {
                self.finish(job, &self.pseudonym(data), EndState::Sent)
                    .await;
                Outcome::Done
            }
            Ok(_) => retry(error),
            Err(error) => retry(&error),
        }
    }

    fn pseudonym(&self, data: &JobData) -> String {
        data.email.pseudonym(&self.keys)
    }

    /// Notes the end. A store that fails now must not bring the mail out a second time, so that
    /// the job ends all the same, and only the state of the request stays unknown.
    async fn finish(&self, job: &Job, pseudonym: &str, state: EndState) {
        let ending = Ending {
            state,
            requested_at: job.requested_at,
            ended_at: self.clock.now(),
        };
        let noted: Result<(), StoreError> = self.store.finish(&job.id, ending).await;
        if let Err(error) = noted {
            self.telemetry.part_failed("store", &error);
        }
        self.telemetry
            .request_ended(state.name(), &mask(&job.id), pseudonym);
    }
}

impl From<Outcome> for Attempted {
    /// Without a mail.
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            has_mailed: false,
        }
    }
}

fn retry(error: &dyn std::error::Error) -> Outcome {
    Outcome::Retry {
        reason: error.to_string(),
    }
}

fn fail(reason: String) -> Outcome {
    Outcome::Fail { reason }
}
