//! `GET /otp/requests/{id}`: how the mail of a request stands. Who knows the id may ask; the answer
//! holds no address, no code and no reason.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::StatusProblems;
use super::problem::Problem;
use super::{Api, exchange};
use crate::otp::clock::UnixMillis;
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
        let state = match ending.state {
            EndState::Sent => RequestState::Sent,
            EndState::Undeliverable
            | EndState::Expired
            | EndState::Superseded
            | EndState::Blocked => RequestState::Failed,
        };
        Self {
            state,
            requested_at: rfc3339(ending.requested_at),
            ended_at: Some(rfc3339(ending.ended_at)),
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
            requested_at: rfc3339(job.requested_at),
            ended_at: None,
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
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    if uri.query().is_some() {
        return Err(Problem::query_not_allowed());
    }
    let Path(id) = id.map_err(|_it_quotes_the_path| Problem::not_found())?;
    let id = RequestId::parse(&id).ok_or_else(Problem::not_found)?;
    let status = look_up(&api, &id).await?.ok_or_else(Problem::not_found)?;
    Ok(exchange::json(StatusCode::OK, &status))
}

/// The end first, since a job that has just ended may still be seen on the queue; and once more at
/// last, since a job may end and leave the queue between the two questions.
async fn look_up(api: &Api, id: &RequestId) -> Result<Option<RequestStatus>, Problem> {
    if let Some(ending) = ending(api, id).await? {
        return Ok(Some(ending));
    }
    let job = api
        .within_deadline("queue", api.queue.state(id))
        .await?
        .map_err(Problem::unavailable)?;
    match job {
        Some(job) => Ok(Some(job.into())),
        None => ending(api, id).await,
    }
}

async fn ending(api: &Api, id: &RequestId) -> Result<Option<RequestStatus>, Problem> {
    let ending = api
        .within_deadline("store", api.store.ending(id.reveal()))
        .await?
        .map_err(Problem::unavailable)?;
    Ok(ending.map(Into::into))
}

/// `2026-09-21T14:13:20.000Z`. Years count from March, so that the leap day ends one; an era has
/// 400 years of 146,097 days in all, and 1970-01-01 is day 719,468 of this count.
fn rfc3339(instant: UnixMillis) -> String {
    let (seconds, millis) = (instant.0 / 1_000, instant.0 % 1_000);
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_790_000_000_250, "2026-09-21T14:13:20.250Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(rfc3339(UnixMillis(millis)), text);
        }
    }
}
