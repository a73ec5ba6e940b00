//! How a request for a code gets in: its mail is admitted, and its job is put onto the queue. Where
//! store and queue are apart these are two steps, in the embedded database they are one.

use std::sync::Arc;

use async_trait::async_trait;

use super::problem::Problem;
use super::within_deadline;
use crate::queue::job::{JobData, RequestId};
use crate::queue::sqlite::SqliteQueue;
use crate::queue::{EnqueueError, JobQueue};
use crate::store::sqlite::SqliteStore;
use crate::store::{Admission, AdmitRequest, Admitted, OtpStore, Repeatable, Repetition};
use crate::telemetry::Telemetry;

/// Takes requests for codes.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Has the mail counted and its job put onto the queue. A granted one is durable in both; a
    /// mail of which nobody knows whether the queue took it stays counted, or a queue that answers
    /// late would let any number out.
    async fn take(
        &self,
        mail: &AdmitRequest,
        id: &RequestId,
        data: &JobData,
    ) -> Result<Admitted, NotTaken>;
}

/// Why a request did not get in.
#[derive(Debug)]
pub enum NotTaken {
    /// The queue is full: no mail comes of it, and nothing is counted.
    Full(EnqueueError),
    /// Something failed; whether a mail comes of it is unknown.
    Unknown(Problem),
}

impl From<Problem> for NotTaken {
    fn from(problem: Problem) -> Self {
        Self::Unknown(problem)
    }
}

impl From<EnqueueError> for NotTaken {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Full => Self::Full(error),
            EnqueueError::Queue(_) => Self::Unknown(Problem::unavailable(error)),
        }
    }
}

impl From<NotTaken> for Problem {
    fn from(reason: NotTaken) -> Self {
        match reason {
            NotTaken::Full(error) => Self::backlog_full(error),
            NotTaken::Unknown(problem) => problem,
        }
    }
}

/// Store and queue that know nothing of each other: first the one, then the other.
pub struct TwoSteps {
    /// Counts the mails.
    pub store: Arc<dyn OtpStore>,
    /// Takes the jobs.
    pub queue: Arc<dyn JobQueue>,
    /// Learns of what fails beside an answer.
    pub telemetry: Arc<Telemetry>,
}

/// Store and queue in one database: one transaction.
pub struct OneStep {
    /// Counts the mails.
    pub store: SqliteStore,
    /// Takes the jobs.
    pub queue: Arc<SqliteQueue>,
    /// The way of a mail that finds the queue full: its limits speak first.
    pub two_steps: TwoSteps,
}

#[async_trait]
impl Intake for TwoSteps {
    async fn take(
        &self,
        mail: &AdmitRequest,
        id: &RequestId,
        data: &JobData,
    ) -> Result<Admitted, NotTaken> {
        let mut admitted = within_deadline("store", self.store.admit(mail))
            .await?
            .map_err(Problem::unavailable)?;
        match &admitted.admission {
            Admission::Granted => {
                let enqueued = within_deadline("queue", self.queue.enqueue(id, data)).await?;
                if matches!(enqueued, Err(EnqueueError::Full)) {
                    // This one certainly does not come.
                    self.give_back(mail).await;
                }
                enqueued?;
                self.note_enqueued(mail, id).await;
            }
            Admission::Repeated(Repetition::Unfinished { id }) => {
                admitted.admission = self.finish(mail, id, data).await?;
            }
            _ => {}
        }
        Ok(admitted)
    }
}

impl TwoSteps {
    /// Does the rest of a request of which nobody knows whether its job came onto the queue. It was
    /// counted then, and the same id is the same job.
    async fn finish(
        &self,
        mail: &AdmitRequest,
        id: &str,
        data: &JobData,
    ) -> Result<Admission, NotTaken> {
        let first = RequestId::parse(id).ok_or_else(|| Problem::internal_error(NoRequest))?;
        let ending = within_deadline("store", self.store.ending(id))
            .await?
            .map_err(Problem::unavailable)?;
        // The queue does not know a job any more that has come to its end.
        if ending.is_none() {
            within_deadline("queue", self.queue.enqueue(&first, data)).await??;
        }
        self.note_enqueued(mail, &first).await;
        let id = id.to_owned();
        Ok(Admission::Repeated(Repetition::Accepted { id }))
    }

    /// Best effort: if nobody notes it, a repetition adds the same job once more.
    async fn note_enqueued(&self, mail: &AdmitRequest, id: &RequestId) {
        let Some(repeatable) = &mail.repeatable else {
            return;
        };
        let request = Repeatable {
            id: id.reveal().to_owned(),
            ..repeatable.clone()
        };
        let noting = self.store.note_enqueued(&request, mail.limit);
        if let Ok(Err(error)) = within_deadline("store", noting).await {
            self.telemetry.part_failed("store", &error);
        }
    }

    /// Best effort: the client's answer does not hang on it.
    async fn give_back(&self, mail: &AdmitRequest) {
        let given_back = within_deadline("store", self.store.give_back(mail)).await;
        if let Ok(Err(error)) = given_back {
            self.telemetry.part_failed("store", &error);
        }
    }
}

#[async_trait]
impl Intake for OneStep {
    async fn take(
        &self,
        mail: &AdmitRequest,
        id: &RequestId,
        data: &JobData,
    ) -> Result<Admitted, NotTaken> {
        let Ok(insertion) = self.queue.prepare(id, data) else {
            return self.two_steps.take(mail, id, data).await;
        };
        let mut admitted = within_deadline("store", self.store.admit_with(mail, insertion))
            .await?
            .map_err(Problem::unavailable)?;
        if let Admission::Repeated(Repetition::Unfinished { id }) = &admitted.admission {
            admitted.admission = self.two_steps.finish(mail, id, data).await?;
        }
        Ok(admitted)
    }
}

/// What the store remembers of a repeated request has no id of a request.
#[derive(Debug, thiserror::Error)]
#[error("the store remembers a request by no id of one")]
struct NoRequest;

#[cfg(test)]
mod tests {
    use crate::api::BACKEND_DEADLINE;
    use crate::otp::idempotency::IN_FLIGHT;

    #[test]
    fn no_request_is_under_way_longer_than_its_repetitions_are_told() {
        // At most: admission, ending, queue, note.
        assert!(IN_FLIGHT > 4 * BACKEND_DEADLINE);
    }
}
