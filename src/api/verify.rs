//! `POST /otp/verify`: asks the store whether a code is right. Wrong, expired, used and never issued
//! are one answer; a store that fails is never a success.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Members;
use super::client::Client;
use super::generate::parse_context;
use super::openapi::VerifyProblems;
use super::problem::Problem;
use super::{Api, exchange};
use crate::otp::address::{ChallengeId, EmailAddress, LimitId};
use crate::otp::code::Code;
use crate::otp::keys::KeyRing;
use crate::otp::network::client_prefix;
use crate::otp::policy::{STEPPED_DIGITS, guess_mass};
use crate::store::{Cause, ClientPrefix, Verdict, VerifyRequest as StoreRequest};

/// What `POST /otp/verify` takes.
#[derive(ToSchema)]
pub struct VerifyRequest {
    /// The address as it was given to generate; ASCII upper and lower case are alike.
    #[schema(value_type = String, format = "email", max_length = 254, example = "ada@example.org")]
    email: EmailAddress,
    /// The code in the mail, as a text: 6 ASCII digits, 8 after many failures (6 being the
    /// configured length). Spaces and hyphens between them are ignored.
    #[schema(value_type = String, pattern = "^[0-9]{6}([0-9]{2})?$", example = "012345")]
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
    fn parse(mut members: Members, digits: u8) -> Result<Self, Problem> {
        let email = members.required("#/email", EmailAddress::parse);
        let otp = members.required("#/otp", |text| Code::parse(text, &[digits, STEPPED_DIGITS]));
        let context = members.optional("#/context", parse_context);
        members.finish(email.zip(otp).map(|(email, otp)| Self {
            email,
            otp,
            context,
        }))
    }

    /// One tag for every listed key: which of them made the live code is the store's knowledge.
    fn for_the_store(&self, keys: &KeyRing, client: Option<IpAddr>) -> StoreRequest {
        let context = self.context.as_deref().unwrap_or_default();
        let challenge = ChallengeId::of(keys, &self.email, context);
        StoreRequest {
            limit: LimitId::of(keys, &self.email),
            challenge,
            tags: keys
                .all()
                .map(|key| (key.id(), self.otp.tag(key, challenge)))
                .collect(),
            client: client
                .map(|address| ClientPrefix(keys.name(&[b"client", &client_prefix(address)]))),
        }
    }
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
        ),
        VerifyProblems,
    )
)]
pub async fn verify(
    State(api): State<Arc<Api>>,
    client: Client,
    members: Members,
) -> Result<Response, Problem> {
    let request = VerifyRequest::parse(members, api.policy.digits)?;
    let client = client.address.filter(|_| api.client_limits);
    let request = request.for_the_store(&api.keys, client);
    let check = api
        .within_deadline("store", api.store.verify(&request))
        .await?
        .map_err(Problem::unavailable)?;
    match check.verdict {
        Verdict::Correct => {
            api.telemetry.verified("correct");
            let message = "OTP is correct";
            Ok(exchange::json(StatusCode::OK, &Verified { message }))
        }
        Verdict::Incorrect(cause) => {
            api.telemetry.guessed(
                guess_mass(check.evaluated.normal, api.policy.digits)
                    + guess_mass(check.evaluated.stepped, STEPPED_DIGITS),
            );
            api.telemetry.verified(match cause {
                Cause::Wrong => "wrong",
                Cause::NoLiveCode => "no_live_code",
                Cause::BudgetSpent => "budget_spent",
            });
            Err(Problem::otp_incorrect())
        }
    }
}
