//! The HTTP side of otpost: the only place that knows HTTP. It takes requests apart, asks queue and
//! store, and puts their answers into words.
//!
//! Every answer leaves through `exchange`, every error as a `problem`. Whatever is under `/otp` is
//! behind the gate in `client`. The store counts what an address, a client and all together may have;
//! `rate_limit` tells the client its own share.

pub mod generate;
pub mod intake;
pub mod verify;
pub mod requests;
pub mod problem;
pub mod client;
pub mod idempotency;
pub mod rate_limit;
pub mod forwarded;
pub mod cors;
pub mod body;
pub mod exchange;
pub mod framing;
pub mod connection;
pub mod room;
pub mod server;
pub mod ops;
pub mod health;
pub mod dev;
pub mod page;
pub mod openapi;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use axum::Router;
use axum::body::Bytes;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{any, get, post};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use self::openapi::Callers;
use crate::otp::address::{AddressError, EmailAddress};
use crate::otp::breaker::Breaker;
use crate::otp::code::Entropy;
use crate::otp::keys::KeyRing;
use crate::otp::policy::Policy;
use crate::queue::JobQueue;
use crate::store::OtpStore;
use crate::telemetry::Telemetry;
use cors::Cors;
use exchange::{Exchange, Failure};
use intake::Intake;
use problem::Problem;

/// How long store and queue may take to answer; then the client gets a 503.
pub const BACKEND_DEADLINE: Duration = Duration::from_secs(2);

/// The most that is being finished at once, as much as there are connections: who hangs up must not
/// make room for more, or the memory would have no bound.
const UNFINISHED: usize = 10_000;

/// What the public listener answers with.
pub struct Api {
    /// Decides about codes.
    pub store: Arc<dyn OtpStore>,
    /// Knows the jobs.
    pub queue: Arc<dyn JobQueue>,
    /// Takes the requests for codes, on behalf of both.
    pub intake: Arc<dyn Intake>,
    /// Names addresses and tags codes.
    pub keys: Arc<KeyRing>,
    /// The numbers of codes.
    pub policy: Policy,
    /// Whether addresses may go beyond ASCII before the `@`.
    pub smtputf8: bool,
    /// How long a client should wait before it asks for the same address again.
    pub resend_in: Duration,
    /// Makes the ids of requests.
    pub entropy: Arc<dyn Entropy>,
    /// Counts and logs.
    pub telemetry: Arc<Telemetry>,
    /// Whom the endpoints answer, and whose word about the client's address counts.
    pub gate: client::Gate,
    /// Counts wrong codes that no success followed.
    pub breaker: Arc<Breaker>,
    /// Keeps what was begun until it has ended; the stop waits for it.
    pub tasks: TaskTracker,
    /// Origins whose pages may call the endpoints.
    pub cors_origins: Vec<String>,
    /// Where clients reach the service, or empty if that is not configured.
    pub public_url: String,
    /// Set in development mode, and only there.
    pub development: Option<dev::Development>,
}

impl Api {
    /// The path under which clients find the service: what a proxy puts before its own paths.
    fn public_path(&self) -> &str {
        let behind_scheme = self.public_url.split_once("://");
        let host_and_path = behind_scheme.map_or("", |(_scheme, rest)| rest);
        host_and_path
            .find('/')
            .map_or("", |begin| &host_and_path[begin..])
    }
}

/// The routes of the public listener.
pub fn router(api: Api) -> Router {
    let callers = if api.gate.api_keys.is_empty() {
        Callers::Everybody
    } else {
        Callers::WithKey
    };
    let outer = Exchange {
        telemetry: api.telemetry.clone(),
        entropy: api.entropy.clone(),
        is_https: api.public_url.starts_with("https://"),
        cors: Cors::new(api.cors_origins.clone(), callers == Callers::WithKey),
    };
    let document = Bytes::from(openapi::document(api.policy.digits, callers));
    let gate = Arc::new(api.gate.clone());
    let mut router = Router::new()
        .route("/otp/generate", post(generate::generate))
        .route("/otp/verify", post(verify::verify))
        .route("/otp/requests/{id}", get(requests::request_status))
        // Only what stands above it is behind the gate.
        .route_layer(from_fn_with_state(gate, client::identify))
        .route(
            "/openapi.json",
            get(move || async move { openapi::answer(document) }),
        )
        .route("/", get(page::landing));
    if api.development.is_some() {
        // Any method: to whom the mailbox does not exist, no method of it exists either.
        router = router
            .route("/dev/mailbox", any(dev::mailbox))
            .route("/dev/mailbox/messages", any(dev::messages));
    }
    finish(router.with_state(Arc::new(api)), outer)
}

/// Puts around routes what holds for every request.
fn finish(router: Router, outer: Exchange) -> Router {
    router
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn_with_state(outer, exchange::exchange))
}

impl Api {
    /// Reads an address as the settings allow.
    fn parse_address(&self, text: &str) -> Result<EmailAddress, AddressError> {
        if self.smtputf8 {
            EmailAddress::parse_internationalized(text)
        } else {
            EmailAddress::parse(text)
        }
    }

    /// Does what a request asks to its end, even if the client goes away meanwhile: what the store
    /// has counted by then must reach the breaker and the metrics too, or be given back.
    async fn finish<F>(&self, work: F) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        if self.tasks.len() >= UNFINISHED {
            return Err(Problem::unavailable(TooMuchBegun));
        }
        let task = self.tasks.spawn(work.in_current_span());
        task.await
            .unwrap_or_else(|_panic| Err(Problem::internal_error(Failure::Panicked)))
    }
}

/// Waits for the answer of a backend, but not for ever.
async fn within_deadline<T>(
    part: &'static str,
    answer: impl Future<Output = T>,
) -> Result<T, Problem> {
    tokio::time::timeout(BACKEND_DEADLINE, answer)
        .await
        .map_err(|_elapsed| Problem::unavailable(NoAnswer { part }))
}

/// A backend did not answer in time; what it did is unknown.
#[derive(Debug, thiserror::Error)]
#[error("the {part} did not answer within 2 s")]
struct NoAnswer {
    part: &'static str,
}

/// More has been begun than is finished.
#[derive(Debug, thiserror::Error)]
#[error("too many requests wait for store or queue")]
struct TooMuchBegun;
