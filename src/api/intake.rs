//! How a request for a code gets in: its mail is admitted, and its job is put onto the queue. Where
//! store and queue are apart these are two steps, in the embedded database they are one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::problem::Problem;
use super::within_deadline;
use crate::queue::job::{JobData, RequestId};
use crate::queue::sqlite::SqliteQueue;
use crate::queue::{EnqueueError, JobQueue};
use crate::store::sqlite::SqliteStore;
use crate::store::{
    Admission, AdmitRequest, Admitted, OtpStore, Pace, Paced, Repeatable, Repetition, StoreError,
};
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
    ) -> Result<Admitted, Problem>;
}

/// Store and queue that know nothing of each other: first the one, then the other.
pub struct TwoSteps {
    /// Counts the mails.
    pub store: Arc<dyn OtpStore>,
    /// Takes the jobs.
    pub queue: Arc<dyn JobQueue>,
    /// How many requests a minute the whole service accepts, if that is bounded.
    pub global: Option<Pace>,
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
    ) -> Result<Admitted, Problem> {
        let mut admitted = within_deadline("store", self.store.admit(mail))
            .await?
            .map_err(Problem::unavailable)?;
        admitted.admission = match admitted.admission {
            Admission::Granted => self.begin(mail, id, data).await?,
            Admission::Repeated(Repetition::Unfinished { id }) => {
                self.finish(mail, &id, data).await?
            }
            other => other,
        };
        Ok(admitted)
    }
}

/// Why a job is not on the queue.
enum NotEnqueued {
    /// The whole service has accepted the requests of this minute.
    Paced(Duration),
    /// No mail comes of it.
    Certainly(Problem),
    /// Whether a mail comes of it is unknown.
    Perhaps(Problem),
}

impl NotEnqueued {
    fn told(self) -> Result<Admission, Problem> {
        match self {
            Self::Paced(retry_after) => Ok(Admission::ServiceRefused { retry_after }),
            Self::Certainly(problem) | Self::Perhaps(problem) => Err(problem),
        }
    }
}

impl TwoSteps {
    /// Does the rest of a request that was admitted.
    async fn begin(
        &self,
        mail: &AdmitRequest,
        id: &RequestId,
        data: &JobData,
    ) -> Result<Admission, Problem> {
        match self.enqueue(id, data).await {
            Ok(()) => {
                self.note_enqueued(mail, id).await;
                Ok(Admission::Granted)
            }
            Err(NotEnqueued::Perhaps(problem)) => Err(problem),
            Err(reason) => {
                let giving = self.store.give_back(mail);
                self.report(within_deadline("store", giving).await);
                reason.told()
            }
        }
    }

    /// Does the rest of a request of which nobody knows whether its job came onto the queue. It was
    /// counted then, and the same id is the same job.
    async fn finish(
        &self,
        mail: &AdmitRequest,
        id: &str,
        data: &JobData,
    ) -> Result<Admission, Problem> {
        let first = RequestId::parse(id).ok_or_else(|| Problem::internal_error(NoRequest))?;
        let ending = within_deadline("store", self.store.ending(id))
            .await?
            .map_err(Problem::unavailable)?;
        // The queue does not know a job any more that has come to its end.
        if ending.is_none()
            && let Err(reason) = self.enqueue(&first, data).await
        {
            return reason.told();
        }
        self.note_enqueued(mail, &first).await;
        let id = id.to_owned();
        Ok(Admission::Repeated(Repetition::Accepted { id }))
    }

    /// Takes a place in the budget of the whole service, where that is bounded, and puts the job onto
    /// the queue. Who exceeds the budget is told to come back: a queue that grew instead would mail
    /// codes that nobody waits for any more. Only what was admitted gets here, so that nobody who is
    /// refused holds a place meanwhile.
    async fn enqueue(&self, id: &RequestId, data: &JobData) -> Result<(), NotEnqueued> {
        let place = match &self.global {
            Some(global) => match self.pace(global).await? {
                Paced::Now(at) => Some((global.name, at)),
                Paced::Wait(wait) => return Err(NotEnqueued::Paced(wait)),
            },
            None => None,
        };
        match within_deadline("queue", self.queue.enqueue(id, data)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(full @ EnqueueError::Full)) => {
                if let Some((name, at)) = place {
                    let giving = self.store.give_back_pace(name, at);
                    self.report(within_deadline("store", giving).await);
                }
                Err(NotEnqueued::Certainly(Problem::backlog_full(full)))
            }
            Ok(Err(error)) => Err(NotEnqueued::Perhaps(Problem::unavailable(error))),
            Err(problem) => Err(NotEnqueued::Perhaps(problem)),
        }
    }

    async fn pace(&self, pace: &Pace) -> Result<Paced, NotEnqueued> {
        within_deadline("store", self.store.pace(pace))
            .await
            .and_then(|paced| paced.map_err(Problem::unavailable))
            .map_err(NotEnqueued::Certainly)
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
        self.report(within_deadline("store", noting).await);
    }

    /// What fails beside an answer: the client's does not hang on it.
    fn report(&self, done: Result<Result<(), StoreError>, Problem>) {
        if let Ok(Err(error)) = done {
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
    ) -> Result<Admitted, Problem> {
        let Ok(insertion) = self.queue.prepare(id, data) else {
            return self.two_steps.take(mail, id, data).await;
        };
        let global = self.two_steps.global;
        let mut admitted = within_deadline("store", self.store.admit_with(mail, global, insertion))
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
        // At most: admission, ending, pace, queue, note.
        assert!(IN_FLIGHT > 5 * BACKEND_DEADLINE);
    }
}
