//! What holds for every request and its answer, whatever the path: an id of its own in the log and
//! in errors, security and CORS headers, metrics, a caught panic, and no error that is not a [`Problem`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use serde::Serialize;
use tokio::time::Instant;
use tracing::Instrument;

use super::cors::Cors;
use super::framing::Flaw;
use super::problem::Problem;
use crate::otp::code::Entropy;
use crate::telemetry::Telemetry;

/// The longest request target; the longest that there is has 41 characters.
pub const URI_BYTES: usize = 2 * 1024;
/// The route label of paths that lead nowhere.
const UNMATCHED: &str = "unmatched";

/// What the exchange needs.
#[derive(Clone)]
pub struct Exchange {
    /// Counts answers and logs failures.
    pub telemetry: Arc<Telemetry>,
    /// Makes the ids of HTTP requests.
    pub entropy: Arc<dyn Entropy>,
    /// Whether clients come over TLS, at least as far as the proxy.
    pub is_https: bool,
    /// Which pages of other origins may call.
    pub cors: Cors,
}

/// Takes a request, has it answered, and makes the answer fit to leave.
pub async fn exchange(State(outer): State<Exchange>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = draw_id(outer.entropy.as_ref());
    let span = tracing::info_span!("request", http.request = id);
    let crossing = outer
        .cors
        .examine(route.as_ref().map(MatchedPath::as_str), &request);
    let mut response = match crossing.preflight() {
        Some(response) => response,
        None => answer(request, next).instrument(span).await,
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let instance = format!("urn:otpost:request:{id}");
        *response.body_mut() = Body::from(to_json(&problem.document(&instance)));
        if let Some(cause) = problem.cause() {
            outer.telemetry.request_failed(&id, cause);
        }
    }
    spread(response.headers_mut(), outer.entropy.as_ref());
    crossing.mark(response.headers_mut());
    secure(response.headers_mut(), outer.is_https);
    outer.telemetry.request_answered(
        route.as_ref().map_or(UNMATCHED, MatchedPath::as_str),
        response.status().as_u16(),
        started.elapsed(),
    );
    response
}

/// The handler's answer, or the problem that stands for it.
async fn answer(request: Request, next: Next) -> Response {
    match request.extensions().get::<Flaw>() {
        Some(Flaw::Malformed) => return Problem::malformed_request().into_response(),
        Some(Flaw::TooLarge) => return Problem::head_too_large().into_response(),
        None => {}
    }
    if uri_bytes(request.uri()) > URI_BYTES {
        return Problem::uri_too_long().into_response();
    }
    // A handler owns all that it changes, so that nothing half-done is seen after a panic.
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let Ok(response) = answered else {
        return Problem::internal_error(Failure::Panicked).into_response();
    };
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if is_error && response.extensions().get::<Problem>().is_none() {
        return Problem::internal_error(Failure::Formless(status)).into_response();
    }
    response
}

/// A fault of otpost's own.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A panic's text may hold anything, so that it is not taken along.
    #[error("a handler panicked")]
    Panicked,
    /// Only [`Problem`]s tell a client what is wrong in the form that it was promised.
    #[error("a handler answered {0} in another form than a problem")]
    Formless(StatusCode),
}

fn uri_bytes(uri: &Uri) -> usize {
    let authority = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    authority + target
}

/// 128 random bits; they tell nothing and are not the id of a request for a code.
fn draw_id(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 16];
    match entropy.fill(&mut bytes) {
        Ok(()) => data_encoding::HEXLOWER.encode(&bytes),
        // Whatever needs chance for more than a name will fail by itself.
        Err(_no_entropy) => "unknown".to_owned(),
    }
}

/// Who was sent away at one instant does not come back at one: some wait up to a tenth longer.
fn spread(headers: &mut HeaderMap, entropy: &dyn Entropy) {
    let Some(seconds) = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
    else {
        return;
    };
    let mut chance = [0; 4];
    if let (Ok(seconds), Ok(())) = (seconds.parse::<u32>(), entropy.fill(&mut chance)) {
        let longer = u32::from_be_bytes(chance) % (seconds / 10 + 2);
        headers.insert(
            RETRY_AFTER,
            HeaderValue::from(seconds.saturating_add(longer)),
        );
    }
}

/// Nobody keeps, frames, guesses at or passes on an answer; a page brings its own content security policy.
fn secure(headers: &mut HeaderMap, is_https: bool) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    if is_https {
        headers.insert(
            STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
}

/// An answer in JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, headers, to_json(body)).into_response()
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("texts, numbers and lists of them are JSON")
}
