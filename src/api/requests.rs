//! `GET /otp/requests/{id}`: how the mail of a request stands. Who knows the id may ask; the answer
//! holds no address and no code, and why there is no mail only for callers with an API key: it tells
//! about the mailbox.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::client::Client;
use super::openapi::StatusProblems;
use super::problem::Problem;
use super::{Api, exchange, within_deadline};
use crate::queue::job::RequestId;
use crate::queue::{JobState, Phase};
use crate::store::{EndState, Ending};

/// How a request stands.
#[derive(Serialize, ToSchema)]
pub struct RequestStatus {
    /// Where it stands.
    state: RequestState,
    /// When it was made (RFC 3339).
    #[schema(format = "date-time", example = "2026-09-21T14:13:20.000Z")]
    requested_at: String,
    /// When it came to its end (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        format = "date-time",
        example = "2026-09-21T14:13:21.250Z"
    )]
    ended_at: Option<String>,
    /// Why there will be no mail; only for callers with an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<Reason>,
}

/// Why there will be no mail.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The mail server refused the recipient or the content.
    Undeliverable,
    /// The code's lifetime passed before a mail server took the mail.
    Expired,
    /// The person had succeeded with an earlier mail.
    Superseded,
    /// The service could not do its part.
    Unavailable,
}

/// Where a request stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// It waits.
    Queued,
    /// The mail is being handed over.
    Sending,
    /// Handing over failed; it is tried again.
    Retrying,
    /// A mail server took the mail.
    Sent,
    /// There will be no mail.
    Failed,
}

impl From<Ending> for RequestStatus {
    fn from(ending: Ending) -> Self {
        let reason = match ending.state {
            EndState::Sent => None,
            EndState::Undeliverable => Some(Reason::Undeliverable),
            EndState::Expired => Some(Reason::Expired),
            EndState::Superseded => Some(Reason::Superseded),
            EndState::Blocked => Some(Reason::Unavailable),
        };
        Self {
            state: match reason {
                None => RequestState::Sent,
                Some(_) => RequestState::Failed,
            },
            requested_at: ending.requested_at.rfc3339(),
            ended_at: Some(ending.ended_at.rfc3339()),
            reason,
        }
    }
}

impl From<JobState> for RequestStatus {
    fn from(job: JobState) -> Self {
        let state = match job.phase {
            Phase::Waiting => RequestState::Queued,
            Phase::Active => RequestState::Sending,
            Phase::Retrying => RequestState::Retrying,
            Phase::Completed => RequestState::Sent,
            Phase::Failed => RequestState::Failed,
        };
        Self {
            state,
            requested_at: job.requested_at.rfc3339(),
            ended_at: None,
            // Nobody noted how it ended, or this would not be asked of the queue.
            reason: (job.phase == Phase::Failed).then_some(Reason::Unavailable),
        }
    }
}

/// Tells how a request stands.
#[utoipa::path(
    get,
    path = "/otp/requests/{id}",
    operation_id = "request_status",
    tag = "otp",
    params((
        "id" = String,
        Path,
        description = "The id that generate answered with; whoever knows it may ask.",
        pattern = "^r[a-z2-7]{26}$",
        example = "raebagbafaydqqcikbmga2dqpca"
    )),
    responses(
        (status = 200, description = "How the request stands.", body = RequestStatus),
        StatusProblems,
    )
)]
pub async fn request_status(
    State(api): State<Arc<Api>>,
    client: Client,
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    if uri.query().is_some() {
        return Err(Problem::query_not_allowed());
    }
    let Path(id) = id.map_err(|_it_quotes_the_path| Problem::not_found())?;
    let id = RequestId::parse(&id).ok_or_else(Problem::not_found)?;
    let mut status = look_up(&api, &id).await?.ok_or_else(Problem::not_found)?;
    if client.api_key.is_none() {
        status.reason = None;
    }
    Ok(exchange::json(StatusCode::OK, &status))
}

/// The end first, since a job that has just ended may still be seen on the queue; and once more at
/// last, since a job may end and leave the queue between the two questions.
async fn look_up(api: &Api, id: &RequestId) -> Result<Option<RequestStatus>, Problem> {
    if let Some(ending) = ending(api, id).await? {
        return Ok(Some(ending));
    }
    let job = within_deadline("queue", api.queue.state(id))
        .await?
        .map_err(Problem::unavailable)?;
    match job {
        Some(job) => Ok(Some(job.into())),
        None => ending(api, id).await,
    }
}

async fn ending(api: &Api, id: &RequestId) -> Result<Option<RequestStatus>, Problem> {
    let ending = within_deadline("store", api.store.ending(id.reveal()))
        .await?
        .map_err(Problem::unavailable)?;
    Ok(ending.map(Into::into))
}
