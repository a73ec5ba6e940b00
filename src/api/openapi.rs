//! The OpenAPI document of the public listener, made from the types and handlers themselves. The
//! copy in the repository is compared with it in a test.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, Type};
use utoipa::{IntoResponses, OpenApi};

use super::problem::{self, Finding, Problem};
use super::{generate, idempotency, requests, verify};
use crate::otp::client_budget::{ClientLimit, GENERATE_LIMITS};
use crate::store::Quota;

/// How many digits codes have if nobody sets it; the copy in the repository tells of these.
pub const USUAL_DIGITS: u8 = 6;

/// Whom the service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Everybody, as long as no key is listed.
    Everybody,
    /// Those who have one of the keys that are listed.
    WithKey,
}

/// The instance of every example.
const INSTANCE: &str = "urn:otpost:request:5f3c9a4e7d21b8064c1ae95d37f2608b";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "otpost",
        description = "Proves that a person reads an email address: one endpoint mails a one-time \
                       code, one endpoint checks it.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This server")),
    tags((name = "otp", description = "One-time codes by mail")),
    paths(generate::generate, verify::verify, requests::request_status),
    components(schemas(problem::Document)),
)]
struct Description;

/// The document where codes have so many digits, ready to be written to a file.
pub fn document(digits: u8, callers: Callers) -> String {
    let mut document =
        serde_json::to_value(Description::openapi()).expect("the document is made of plain values");
    for schema in ["GenerateRequest", "VerifyRequest"] {
        document["components"]["schemas"][schema]["additionalProperties"] = json!(false);
    }
    let members = &mut document["components"]["schemas"]["VerifyRequest"]["properties"];
    members["otp"] = verify::describe_otp(digits);
    document["components"]["securitySchemes"]["api_key"] = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "An API key that `otpost apikey` made. Needed as soon as the service lists \
                        the hash of any; without, everybody may call.",
    });
    document["components"]["parameters"]["client_ip"] = client_ip(callers);
    document["components"]["parameters"]["idempotency_key"] = idempotency::parameter();
    for operation in operations(&mut document) {
        operation["security"] = match callers {
            Callers::Everybody => json!([{}, { "api_key": [] }]),
            Callers::WithKey => json!([{ "api_key": [] }]),
        };
        add_parameter(operation, "client_ip");
        // Only what takes a body does something that may not be done twice.
        if operation.get("requestBody").is_some() {
            add_parameter(operation, "idempotency_key");
        }
    }
    let mut text = format!("{document:#}");
    text.push('\n');
    text
}

fn add_parameter(operation: &mut Value, name: &str) {
    let reference = json!({ "$ref": format!("#/components/parameters/{name}") });
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(reference),
        None => operation["parameters"] = json!([reference]),
    }
}

/// The header that the gate reads, so that it belongs to every operation behind it. From callers without
/// a key any text is accepted, and passed over.
fn client_ip(callers: Callers) -> Value {
    let schema = match callers {
        Callers::Everybody => json!({ "type": "string" }),
        Callers::WithKey => json!({
            "type": "string",
            "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }],
        }),
    };
    json!({
        "name": "Otpost-Client-Ip",
        "in": "header",
        "required": false,
        "description": "The address of the caller's own client, for whom the limits of clients \
                        then count; without it they count for nobody. Read from callers with an \
                        API key only.",
        "schema": schema,
        "example": "203.0.113.7",
    })
}

/// All operations; every path of the document is behind the gate.
fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths
        .filter_map(|(_path, operations)| operations.as_object_mut())
        .flat_map(|operations| operations.iter_mut())
        .map(|(_method, operation)| operation)
}

/// Answers `GET /openapi.json` with the document, written once.
pub fn answer(document: Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], document).into_response()
}

/// What can go wrong at `POST /otp/generate`.
pub struct PostProblems;

impl IntoResponses for PostProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let mut problems = post_problems();
        problems.push(Problem::idempotency_key_in_flight(Duration::from_secs(8)));
        problems.push(Problem::too_many_requests(Duration::from_secs(30)));
        problems.push(refused(&GENERATE_LIMITS));
        problems.push(Problem::backlog_full(Example));
        problems.push(Problem::global_budget_spent(Duration::from_secs(30)));
        describe(&problems)
    }
}

/// What can go wrong at `POST /otp/verify`.
pub struct VerifyProblems;

impl IntoResponses for VerifyProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let mut problems = post_problems();
        let failures = [ClientLimit::FailuresInAnHour];
        problems.push(Problem::otp_incorrect().with_standing(&failures.map(example_quota)));
        problems.push(refused(&failures));
        describe(&problems)
    }
}

/// What can go wrong at `GET /otp/requests/{id}`.
pub struct StatusProblems;

impl IntoResponses for StatusProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        describe(&[
            Problem::query_not_allowed(),
            Problem::invalid_client_ip(),
            Problem::unauthorized(),
            Problem::not_found(),
            Problem::method_not_allowed_but("GET,HEAD"),
            Problem::uri_too_long(),
            Problem::malformed_request(),
            Problem::head_too_large(),
            Problem::internal_error(Example),
            Problem::unavailable(Example),
        ])
    }
}

/// The cause of an example; nobody gets to see it.
#[derive(Debug, thiserror::Error)]
#[error("an example")]
struct Example;

/// The refusal of a client that has spent these limits.
fn refused(limits: &[ClientLimit]) -> Problem {
    let quotas: Vec<Quota> = limits
        .iter()
        .map(|limit| Quota {
            remaining: 0,
            ..example_quota(*limit)
        })
        .collect();
    Problem::client_refused(Duration::from_secs(60), &quotas)
}

fn example_quota(limit: ClientLimit) -> Quota {
    Quota {
        limit,
        most: 10,
        remaining: 9,
        more_in: Duration::from_secs(60),
    }
}

fn post_problems() -> Vec<Problem> {
    let missing = Finding {
        pointer: "#/email",
        code: "required",
        message: "must be there".to_owned(),
    };
    vec![
        Problem::malformed_request(),
        Problem::head_too_large(),
        Problem::malformed_json(),
        Problem::incomplete_body(),
        Problem::invalid_request(vec![missing]),
        Problem::query_not_allowed(),
        Problem::invalid_client_ip(),
        Problem::idempotency_key_malformed(),
        Problem::idempotency_key_reused(),
        Problem::unauthorized(),
        Problem::method_not_allowed_but("POST"),
        Problem::request_timeout(),
        Problem::body_too_large(),
        Problem::uri_too_long(),
        Problem::unsupported_media_type(),
        Problem::internal_error(Example),
        Problem::unavailable(Example),
    ]
}

/// One response a status, one example a problem.
fn describe(problems: &[Problem]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let mut by_status: BTreeMap<String, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        let status = problem.status().as_str().to_owned();
        by_status.entry(status).or_default().push(problem);
    }
    by_status
        .into_iter()
        .map(|(status, problems)| (status, describe_status(&problems).into()))
        .collect()
}

fn describe_status(problems: &[&Problem]) -> utoipa::openapi::Response {
    let titles: Vec<&str> = problems.iter().map(|problem| problem.title()).collect();
    let examples = problems.iter().map(|problem| {
        let example = ExampleBuilder::new().value(Some(example(problem))).build();
        (problem.code(), example)
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new()
        .description(format!("{}.", titles.join("; ")))
        .content(problem::MEDIA_TYPE, content);
    for (name, value) in problems.iter().flat_map(|problem| problem.headers()) {
        let kind = if name == "retry-after" {
            Type::Integer
        } else {
            Type::String
        };
        let header = HeaderBuilder::new()
            .schema(Some(
                utoipa::openapi::ObjectBuilder::new().schema_type(kind),
            ))
            .example(value.to_str().ok().map(Value::from))
            .build();
        response = response.header(name.as_str(), header);
    }
    response.build()
}

fn example(problem: &Problem) -> Value {
    serde_json::to_value(problem.document(INSTANCE)).expect("a problem is JSON")
}
