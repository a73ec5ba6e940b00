//! `POST /otp/verify`: asks the store whether a code is right. Wrong, expired, used and never issued
//! are one answer; a store that fails is never a success.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::body::Members;
use super::client::Client;
use super::generate::parse_context;
use super::idempotency::IdempotencyKey;
use super::openapi::VerifyProblems;
use super::problem::Problem;
use super::{Api, exchange, rate_limit, within_deadline};
use crate::otp::address::{ChallengeId, EmailAddress, LimitId};
use crate::otp::code::Code;
use crate::otp::policy::{STEPPED_DIGITS, guess_mass};
use crate::store::{Cause, Quota, Verdict, VerifyRequest as StoreRequest};

/// What `POST /otp/verify` takes.
#[derive(ToSchema)]
pub struct VerifyRequest {
    /// The address as it was given to generate; ASCII upper and lower case are alike.
    #[schema(value_type = String, format = "email", max_length = 254, example = "ada@example.org")]
    email: EmailAddress,
    /// The code in the mail; [`describe_otp`] tells its form.
    #[schema(value_type = String)]
    otp: Code,
    /// The context that was given to generate, if any.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "login"
    )]
    context: Option<String>,
}

/// The code is right, and used up.
#[derive(Serialize, ToSchema)]
pub struct Verified {
    /// `OTP is correct`.
    #[schema(example = "OTP is correct")]
    message: &'static str,
}

impl VerifyRequest {
    /// A code has the configured length, or the stepped-up one.
    fn parse(mut members: Members, api: &Api) -> Result<Self, Problem> {
        let digits = api.policy.digits;
        let email = members.required("#/email", |text| api.parse_address(text));
        let otp = members.required("#/otp", |text| Code::parse(text, &[digits, STEPPED_DIGITS]));
        let context = members.optional("#/context", parse_context);
        members.finish(email.zip(otp).map(|(email, otp)| Self {
            email,
            otp,
            context,
        }))
    }

    /// One tag for every listed key: which of them made the live code is the store's knowledge.
    fn for_the_store(&self, api: &Api, client: &Client, key: &IdempotencyKey) -> StoreRequest {
        let keys = &api.keys;
        let limit = LimitId::of(keys, &self.email);
        let context = self.context.as_deref().unwrap_or_default();
        let challenge = ChallengeId::of(keys, &self.email, context);
        StoreRequest {
            limit,
            challenge,
            tags: keys
                .all()
                .map(|key| (key.id(), self.otp.tag(key, challenge)))
                .collect(),
            client: api.buckets(client),
            idempotency: key.id(keys, client, limit),
        }
    }
}

/// The member `otp` in the API's description, where codes have so many digits.
pub fn describe_otp(digits: u8) -> Value {
    let (longer, lengths) = match STEPPED_DIGITS.saturating_sub(digits) {
        0 => (String::new(), format!("{digits} ASCII digits")),
        more => (
            format!("([0-9]{{{more}}})?"),
            format!("{digits} ASCII digits, {STEPPED_DIGITS} after many failures"),
        ),
    };
    let example: String = ('0'..='9').take(digits.into()).collect();
    json!({
        "type": "string",
        "description": format!(
            "The code in the mail, as a text: {lengths}. Spaces and hyphens between them are ignored."
        ),
        "pattern": format!("^[0-9]{{{digits}}}{longer}$"),
        "example": example,
    })
}

/// Checks a code.
#[utoipa::path(
    post,
    path = "/otp/verify",
    operation_id = "verify",
    tag = "otp",
    request_body = VerifyRequest,
    responses(
        (
            status = 200,
            description = "The person reads this address. The code is used up.",
            body = Verified,
            headers(
                ("RateLimit-Policy" = String, description = "The client's own limits."),
                ("RateLimit" = String, description = "What is left of them."),
            ),
        ),
        VerifyProblems,
    )
)]
pub async fn verify(
    State(api): State<Arc<Api>>,
    client: Client,
    idempotency_key: IdempotencyKey,
    members: Members,
) -> Result<Response, Problem> {
    let request = VerifyRequest::parse(members, &api)?;
    let request = request.for_the_store(&api, &client, &idempotency_key);
    api.clone().finish(ask(api, request)).await
}

async fn ask(api: Arc<Api>, request: StoreRequest) -> Result<Response, Problem> {
    let check = within_deadline("store", api.store.verify(&request))
        .await?
        .map_err(Problem::unavailable)?;
    let quotas = check.client.as_slice();
    match check.verdict {
        Verdict::Correct => {
            api.telemetry.verified("correct");
            api.breaker.resolved(check.resolved);
            Ok(correct(quotas))
        }
        Verdict::Repeated => {
            api.telemetry.verified("repeated");
            Ok(correct(quotas))
        }
        Verdict::KeyReused => {
            api.telemetry.verified("key_reused");
            Err(Problem::idempotency_key_reused().with_standing(quotas))
        }
        Verdict::Refused { retry_after } => {
            api.telemetry.limit_refused("client");
            Err(Problem::client_refused(retry_after, quotas))
        }
        Verdict::Incorrect(cause) => {
            if cause == Cause::Wrong {
                api.breaker.failed();
            }
            api.telemetry.guessed(
                guess_mass(check.evaluated.normal, api.policy.digits)
                    + guess_mass(check.evaluated.stepped, STEPPED_DIGITS),
            );
            api.telemetry.verified(match cause {
                Cause::Wrong => "wrong",
                Cause::NoLiveCode => "no_live_code",
                Cause::BudgetSpent => "budget_spent",
            });
            Err(Problem::otp_incorrect().with_standing(quotas))
        }
    }
}

fn correct(quotas: &[Quota]) -> Response {
    let message = "OTP is correct";
    let mut response = exchange::json(StatusCode::OK, &Verified { message });
    rate_limit::write(response.headers_mut(), quotas);
    response
}
