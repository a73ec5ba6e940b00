//! One attempt at one job: find out which code to mail, mail it, say what becomes of the job.
//!
//! Issuing comes before mailing and always gives the same live code, so that a retry after any
//! accident mails that code again. Every job that the API accepted comes to exactly one end state.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::mailer::{MailError, Mailer, MessageId, OtpMail};
use crate::otp::address::LimitId;
use crate::otp::clock::{Clock, UnixMillis};
use crate::otp::code::{Code, Entropy, Nonce};
use crate::otp::keys::{CodeKey, KeyRing};
use crate::otp::policy::{Policy, STEPPED_DIGITS};
use crate::queue::Outcome;
use crate::queue::job::{Job, JobData, JobError, mask};
use crate::store::{Candidate, EndState, Ending, IssueRequest, Issued, OtpStore, StoreError};
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
        let issued = match self.issue(&job, &data).await {
            Ok(issued) => issued,
            Err(outcome) => return outcome,
        };
        match issued {
            Issued::Superseded => {
                self.finish(&job, &data.email.masked(), EndState::Superseded)
                    .await;
                Outcome::Done
            }
            Issued::Blocked => {
                self.finish(&job, &data.email.masked(), EndState::Blocked)
                    .await;
                Outcome::Done
            }
            Issued::TooOld => {
                self.finish(&job, &data.email.masked(), EndState::Expired)
                    .await;
                fail("expired: the job is older than a code lives".to_owned())
            }
            Issued::Live {
                nonce,
                key_id,
                digits,
                expires_at,
                now,
            } => {
                let Some(key) = self.keys.find(key_id) else {
                    return Outcome::Retry {
                        reason: format!(
                            "the live code was made with key {key_id}, which is not listed here"
                        ),
                    };
                };
                self.mail(
                    &job,
                    &data,
                    &Live {
                        nonce,
                        key,
                        digits,
                        expires_at,
                        now,
                        until,
                    },
                )
                .await
            }
        }
    }

    /// A worker of that version may take it, as long as its code could still be used.
    async fn leave_to_a_newer_worker(&self, job: &Job) -> Outcome {
        if job.requested_at.after(self.policy.lifetime) > self.clock.now() {
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
        };
        self.store
            .issue(&request)
            .await
            .map_err(|error| retry(&error))
    }

    async fn mail(&self, job: &Job, data: &JobData, live: &Live<'_>) -> Outcome {
        let mail = OtpMail {
            to: data.email.clone(),
            code: Code::derive(live.key, live.nonce, data.challenge, live.digits),
            valid_for: live.expires_at.since(live.now),
            locale: data.locale.clone(),
            message_id: MessageId::new(&self.keys, &job.id, live.nonce),
            until: live.until,
        };
        match self.mailer.send(&mail).await {
            Ok(()) => {
                self.finish(job, &data.email.masked(), EndState::Sent).await;
                Outcome::Done
            }
            Err(error @ MailError::Refused(_)) => {
                self.finish(job, &data.email.masked(), EndState::Undeliverable)
                    .await;
                Outcome::Fail {
                    reason: format!("undeliverable: {error}"),
                }
            }
            Err(error @ MailError::Unavailable(_)) => retry(&error),
            Err(error @ MailError::Unconfirmed(_)) => self.unconfirmed(job, data, &error).await,
        }
    }

    /// The mail may have gone out: it is tried once more, then it counts as sent.
    async fn unconfirmed(&self, job: &Job, data: &JobData, error: &MailError) -> Outcome {
        self.telemetry.mail_unconfirmed(&mask(&job.id));
        match self.store.count_unconfirmed(&job.id).await {
            Ok(mails) if mails >= UNCONFIRMED_MAILS => {
                self.finish(job, &data.email.masked(), EndState::Sent).await;
                Outcome::Done
            }
            Ok(_) => retry(error),
            Err(error) => retry(&error),
        }
    }

    /// Notes the end. A store that fails now must not bring the mail out a second time, so that
    /// the job ends all the same, and only the state of the request stays unknown.
    async fn finish(&self, job: &Job, masked_address: &str, state: EndState) {
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
            .request_ended(state.name(), &mask(&job.id), masked_address);
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
