//! The operations listener: whether the process lives, whether it should get requests, and its
//! metrics. It is for operators and their tools and does not belong on a public address.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::cors::Cors;
use super::exchange::{self, Exchange};
use super::problem::{Parts, Problem};
use crate::otp::code::Entropy;
use crate::queue::JobQueue;
use crate::store::{DurabilityLevel, OtpStore};
use crate::telemetry::{QueueDepth, Telemetry};

/// How long a part may take to answer before it counts as unavailable.
pub const PING_DEADLINE: Duration = Duration::from_secs(1);

/// What the operations listener answers with.
pub struct Operations {
    /// Is asked whether it can be used.
    pub store: Arc<dyn OtpStore>,
    /// Is asked whether it can be used, and how many jobs it holds.
    pub queue: Arc<dyn JobQueue>,
    /// Holds the metrics.
    pub telemetry: Arc<Telemetry>,
    /// Makes the ids of HTTP requests.
    pub entropy: Arc<dyn Entropy>,
    /// Whether the store must sync every write before it is acknowledged.
    pub is_strict: bool,
    /// Cancelled when the process stops; it then wants no more requests.
    pub draining: CancellationToken,
}

/// The routes of the operations listener.
pub fn router(operations: Operations) -> Router {
    let outer = Exchange {
        telemetry: operations.telemetry.clone(),
        entropy: operations.entropy.clone(),
        is_https: false,
        cors: Cors::default(),
    };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    super::finish(router.with_state(Arc::new(operations)), outer)
}

/// The process can take requests.
#[derive(Serialize)]
struct Ready {
    status: &'static str,
    parts: Parts,
}

async fn readyz(State(operations): State<Arc<Operations>>) -> Result<Response, Problem> {
    let (store, queue) = tokio::join!(probe_store(&operations), probe(operations.queue.ping()));
    let process = if operations.draining.is_cancelled() {
        Part::Draining
    } else {
        Part::Ok
    };
    let parts = [("process", process), ("queue", queue), ("store", store)];
    let is_ready = parts.iter().all(|(_, part)| *part == Part::Ok);
    let parts = parts.map(|(name, part)| (name, part.as_str())).into();
    if !is_ready {
        return Err(Problem::not_ready(parts));
    }
    let status = "ready";
    Ok(exchange::json(StatusCode::OK, &Ready { status, parts }))
}

/// How a part is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Ok,
    Draining,
    Unavailable,
    NotDurable,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
            Self::NotDurable => "not_durable",
        }
    }
}

async fn probe<E>(ping: impl Future<Output = Result<(), E>>) -> Part {
    match tokio::time::timeout(PING_DEADLINE, ping).await {
        Ok(Ok(())) => Part::Ok,
        Ok(Err(_)) | Err(_) => Part::Unavailable,
    }
}

/// Settings of Redis can change while it runs, so that a strict store is asked for them each time.
async fn probe_store(operations: &Operations) -> Part {
    let is_durable = async {
        if !operations.is_strict {
            return Ok(true);
        }
        let durability = operations.store.durability().await?;
        operations
            .telemetry
            .durability_read(durability.level.name());
        Ok(durability.level == DurabilityLevel::Always)
    };
    let asked = async { tokio::try_join!(operations.store.ping(), is_durable) };
    match tokio::time::timeout(PING_DEADLINE, asked).await {
        Ok(Ok(((), true))) => Part::Ok,
        Ok(Ok(((), false))) => Part::NotDurable,
        Ok(Err(_)) | Err(_) => Part::Unavailable,
    }
}

/// The queue is counted, and the store asked, for the scraper; when that fails, the last answer
/// stands.
async fn metrics(State(operations): State<Arc<Operations>>) -> Response {
    let (counted, durability) = tokio::join!(
        tokio::time::timeout(PING_DEADLINE, operations.queue.counts()),
        tokio::time::timeout(PING_DEADLINE, operations.store.durability()),
    );
    if let Ok(Ok(durability)) = durability {
        operations
            .telemetry
            .durability_read(durability.level.name());
    }
    if let Ok(Ok(counts)) = counted {
        operations.telemetry.queue_counted(QueueDepth {
            waiting: counts.waiting,
            active: counts.active,
            delayed: counts.delayed,
            failed: counts.failed,
        });
    }
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, media_type)], operations.telemetry.encode()).into_response()
}
