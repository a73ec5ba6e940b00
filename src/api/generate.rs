//! `POST /otp/generate`: takes an address, has its limits and its client's charged and puts one job on the queue. It
//! knows no code, and it answers only after the queue has acknowledged the job.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Members;
use super::client::Client;
use super::idempotency::IdempotencyKey;
use super::openapi::PostProblems;
use super::problem::{Problem, whole_seconds};
use super::{Api, exchange, rate_limit};
use crate::otp::address::{CONTEXT_CHARACTERS, ChallengeId, EmailAddress, LimitId};
use crate::otp::idempotency::Fingerprint;
use crate::otp::pace::spread;
use crate::queue::job::{JobData, RequestId};
use crate::store::{Admission, AdmitRequest, IdempotencyId, Quota, Repeatable, Repetition};

/// The most characters that a language tag can have.
const LOCALE_CHARACTERS: usize = 35;

/// What `POST /otp/generate` takes.
#[derive(ToSchema)]
pub struct GenerateRequest {
    /// The address to be proven: ASCII before the `@` (letters beyond it only if the service is set up
    /// for them, `mail.smtputf8`), a domain of at least two labels after it.
    #[schema(value_type = String, format = "email", max_length = 254, example = "ada@example.org")]
    email: EmailAddress,
    /// The language of the mail as a BCP 47 tag; an unknown one falls back to English.
    #[schema(
        nullable = false,
        max_length = 35,
        pattern = "^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$",
        example = "en"
    )]
    locale: Option<String>,
    /// What the code is for (a purpose, a session id); it verifies only with the same context.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "login"
    )]
    context: Option<String>,
}

/// The mail is on its way.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    /// `OTP is on its way`.
    #[schema(example = "OTP is on its way")]
    message: &'static str,
    /// The id by which `GET /otp/requests/{id}` tells how the mail stands.
    #[schema(example = "raebagbafaydqqcikbmga2dqpca")]
    id: String,
    /// How many seconds a code lives, counted from the making of the mail.
    #[schema(example = 600)]
    expires_in: u64,
    /// After how many seconds asking again makes sense.
    #[schema(example = 30)]
    resend_in: u64,
}

impl GenerateRequest {
    fn parse(mut members: Members, api: &Api) -> Result<Self, Problem> {
        let email = members.required("#/email", |text| api.parse_address(text));
        let locale = members.optional("#/locale", parse_locale);
        let context = members.optional("#/context", parse_context);
        members.finish(email.map(|email| Self {
            email,
            locale,
            context,
        }))
    }
}

/// Asks for a code by mail.
#[utoipa::path(
    post,
    path = "/otp/generate",
    operation_id = "generate",
    tag = "otp",
    request_body = GenerateRequest,
    responses(
        (
            status = 202,
            description = "The job is on the queue; the mail follows.",
            body = Accepted,
            headers(
                ("Location" = String, description = "Where to ask how the mail stands."),
                ("RateLimit-Policy" = String, description = "The client's own limits."),
                ("RateLimit" = String, description = "What is left of them."),
            ),
        ),
        PostProblems,
    )
)]
pub async fn generate(
    State(api): State<Arc<Api>>,
    client: Client,
    idempotency_key: IdempotencyKey,
    members: Members,
) -> Result<Response, Problem> {
    let request = GenerateRequest::parse(members, &api)?;
    let context = request.context.as_deref().unwrap_or_default();
    let challenge = ChallengeId::of(&api.keys, &request.email, context);
    let limit = LimitId::of(&api.keys, &request.email);
    let id = RequestId::draw(api.entropy.as_ref()).map_err(Problem::unavailable)?;
    let data = JobData {
        email: request.email,
        locale: request.locale,
        challenge,
    };
    let key = idempotency_key.id(&api.keys, &client, limit);
    let mail = AdmitRequest {
        limit,
        challenge,
        client: api.buckets(&client),
        repeatable: key.map(|key| repeatable(&api, key, &id, &data)),
    };
    api.clone().finish(take(api, mail, id, data)).await
}

async fn take(
    api: Arc<Api>,
    mail: AdmitRequest,
    id: RequestId,
    data: JobData,
) -> Result<Response, Problem> {
    let admitted = api.intake.take(&mail, &id, &data).await?;
    let quotas = admitted.client.as_slice().as_flattened();
    match admitted.admission {
        Admission::Granted => Ok(accepted(&api, id.reveal(), quotas)),
        Admission::Refused { retry_after } => {
            api.telemetry.limit_refused("address");
            Err(Problem::too_many_requests(retry_after))
        }
        Admission::ClientRefused { retry_after } => {
            api.telemetry.limit_refused("client");
            Err(Problem::client_refused(retry_after, quotas))
        }
        Admission::ServiceRefused { retry_after } => {
            api.telemetry.limit_refused("global");
            let wait = spread(retry_after, chance(&api));
            Err(Problem::global_budget_spent(wait))
        }
        Admission::Repeated(repetition) => repeated(&api, &repetition, quotas),
    }
}

/// Without a source of chance everybody waits alike.
fn chance(api: &Api) -> u64 {
    let mut bytes = [0; 8];
    match api.entropy.fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::default(),
    }
}

fn repeatable(api: &Api, key: IdempotencyId, id: &RequestId, data: &JobData) -> Repeatable {
    let locale = data.locale.as_deref();
    Repeatable {
        key,
        fingerprint: Fingerprint::of(&api.keys, &data.email, locale, data.challenge),
        id: id.reveal().to_owned(),
    }
}

fn repeated(api: &Api, repetition: &Repetition, quotas: &[Quota]) -> Result<Response, Problem> {
    match repetition {
        Repetition::Accepted { id } | Repetition::Unfinished { id } => {
            Ok(accepted(api, id, quotas))
        }
        Repetition::InFlight { retry_after } => {
            Err(Problem::idempotency_key_in_flight(*retry_after))
        }
        Repetition::OtherRequest => Err(Problem::idempotency_key_reused()),
    }
}

fn accepted(api: &Api, id: &str, quotas: &[Quota]) -> Response {
    let body = Accepted {
        message: "OTP is on its way",
        id: id.to_owned(),
        expires_in: api.policy.lifetime.as_secs(),
        resend_in: whole_seconds(api.resend_in).into(),
    };
    let mut response = exchange::json(StatusCode::ACCEPTED, &body).into_response();
    let location = HeaderValue::from_str(&format!("{}/otp/requests/{id}", api.public_path()))
        .expect("the public path is ASCII and the id of a request is base32");
    response.headers_mut().insert(LOCATION, location);
    rate_limit::write(response.headers_mut(), quotas);
    response
}

/// Why a text is not a language tag.
#[derive(Debug, thiserror::Error)]
#[error("must be a language tag such as `de` or `pt-BR`, of at most 35 characters")]
struct NoLocale;

/// The shape of a BCP 47 tag; which languages there are is the mailer's business.
fn parse_locale(text: &str) -> Result<String, NoLocale> {
    let mut subtags = text.split('-');
    let is_language = |tag: &str| {
        (2..=3).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let is_subtag = |tag: &str| {
        (2..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let is_tag = text.len() <= LOCALE_CHARACTERS
        && subtags.next().is_some_and(is_language)
        && subtags.all(is_subtag);
    is_tag.then(|| text.to_owned()).ok_or(NoLocale)
}

/// Why a text is not a context.
#[derive(Debug, thiserror::Error)]
#[error("must have 1 to 200 characters and no control characters")]
pub struct NoContext;

/// Reads a context, for generate and verify alike.
pub fn parse_context(text: &str) -> Result<String, NoContext> {
    let length_is_right = (1..=CONTEXT_CHARACTERS).contains(&text.chars().count());
    (length_is_right && !text.chars().any(char::is_control))
        .then(|| text.to_owned())
        .ok_or(NoContext)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_tags_have_a_language_and_subtags() {
        for text in ["de", "DE", "yue", "pt-BR", "zh-Hant-TW", "de-1996"] {
            assert_eq!(parse_locale(text).unwrap(), text);
        }
        let long = format!("de{}", "-abcdefgh".repeat(4));
        for text in [
            "",
            "d",
            "dede",
            "d1",
            "de-",
            "-de",
            "de_DE",
            "de-x",
            "de-abcdefghi",
            "dé",
            "de ",
            &long,
        ] {
            assert!(parse_locale(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_context_has_1_to_200_printable_characters() {
        let (longest, longer) = ("ä".repeat(200), "ä".repeat(201));
        for text in ["x", "change-email", "a b", longest.as_str()] {
            assert_eq!(parse_context(text).unwrap(), text);
        }
        for text in ["", "a\0", "a\nb", "\u{85}", longer.as_str()] {
            assert!(parse_context(text).is_err(), "{text:?}");
        }
    }
}
