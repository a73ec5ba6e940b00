//! The HTTP side alone: the router with a store and a queue that do what the test says, and the
//! server on real sockets.

mod endpoints;
mod failed_verify;
mod methods;
mod client;
mod addresses;
mod api_keys;
mod cors;
mod security_headers;
mod body;
mod json;
mod limits;
mod idempotency;
mod digits;
mod outages;
mod departure;
mod secrecy;
mod ops;
mod dev;
mod openapi;
mod running;
mod server;
mod unread;
mod lingering;
mod malformed;
mod framing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use otpost::api::Api;
use otpost::api::client::Gate;
use otpost::api::dev::Development;
use otpost::api::intake::TwoSteps;
use otpost::api::server::Peer;
use otpost::otp::breaker::Breaker;
use otpost::otp::code::OsEntropy;
use otpost::otp::keys::KeyRing;
use otpost::store::{Cause, Pace, PaceName, Verdict};
use otpost::telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use self::running::PATIENCE;
use crate::contract::store_bench::ALL_LIMITED;
use crate::support::fakes::{FakeQueue, FakeStore};

/// The router and what lies behind it.
struct Bench {
    router: Router,
    store: Arc<FakeStore>,
    queue: Arc<FakeQueue>,
    telemetry: Arc<Telemetry>,
    breaker: Arc<Breaker>,
    tasks: TaskTracker,
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn keys() -> KeyRing {
    KeyRing::new(&[1; 32], &[[3; 32]], &[2; 32])
}

fn incorrect() -> Verdict {
    Verdict::Incorrect(Cause::NoLiveCode)
}

const GLOBAL: Pace = Pace {
    name: PaceName([7; 16]),
    per_minute: 100,
};

/// One mail, as the mailbox lists it.
fn mails() -> Value {
    json!([{
        "id": "1", "to": "ada@example.org", "subject": "Your code", "text": "Your code: 012345",
        "html": "<p>012345</p>", "received": "2026-09-21T14:13:20Z",
    }])
}

impl Bench {
    fn new() -> Self {
        Self::with(FakeStore::new(Verdict::Correct), FakeQueue::new())
    }

    fn with(store: FakeStore, queue: FakeQueue) -> Self {
        Self::build(store, queue, |_api| {})
    }

    fn in_development() -> Self {
        let messages = Arc::new(mails);
        Self::refusing_but(|api| api.development = Some(Development { messages }))
    }

    /// A router that is set up in another way than the usual one.
    fn build(store: FakeStore, queue: FakeQueue, set_up: impl FnOnce(&mut Api)) -> Self {
        let (store, queue) = (Arc::new(store), Arc::new(queue));
        let telemetry = Arc::new(Telemetry::default());
        let (breaker, tasks) = (Arc::new(Breaker::default()), TaskTracker::new());
        let mut api = Api {
            store: store.clone(),
            queue: queue.clone(),
            intake: Arc::new(TwoSteps {
                store: store.clone(),
                queue: queue.clone(),
                global: None,
                telemetry: telemetry.clone(),
            }),
            keys: Arc::new(keys()),
            // It counts in the store alone, which is a fake here.
            policy: ALL_LIMITED,
            smtputf8: false,
            resend_in: Duration::from_secs(30),
            entropy: Arc::new(OsEntropy),
            telemetry: telemetry.clone(),
            gate: Gate::default(),
            breaker: breaker.clone(),
            tasks: tasks.clone(),
            cors_origins: Vec::new(),
            public_url: String::new(),
            development: None,
        };
        set_up(&mut api);
        Self {
            router: otpost::api::router(api),
            store,
            queue,
            telemetry,
            breaker,
            tasks,
        }
    }

    /// Waits until all that was begun has ended.
    async fn rest(&self) {
        self.tasks.close();
        let rest = timeout(PATIENCE, self.tasks.wait()).await;
        rest.expect("what was begun ends");
    }

    /// A router with a budget for the whole service.
    fn bounded(store: FakeStore, queue: FakeQueue) -> Self {
        Self::build(store, queue, |api| {
            api.intake = Arc::new(TwoSteps {
                store: api.store.clone(),
                queue: api.queue.clone(),
                global: Some(GLOBAL),
                telemetry: api.telemetry.clone(),
            });
        })
    }

    /// For tests of what never gets as far as the store.
    fn refusing() -> Self {
        Self::refusing_but(|_api| {})
    }

    /// The same, set up in another way than the usual one.
    fn refusing_but(set_up: impl FnOnce(&mut Api)) -> Self {
        Self::build(FakeStore::new(incorrect()), FakeQueue::new(), set_up)
    }

    /// Fails if anything reached store or queue: what is malformed is no attempt.
    fn assert_untouched(&self) {
        assert!(self.store.verifies.lock().unwrap().is_empty());
        assert!(self.queue.jobs.lock().unwrap().is_empty());
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body)
            .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer = Peer(SocketAddr::from(([127, 0, 0, 1], 50_000)));
        let request = request.extension(peer).body(body.into()).unwrap();
        Answer::of(&self.router, request).await
    }
}

impl Answer {
    async fn of(router: &Router, request: Request) -> Self {
        let response = router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// Fails unless this is a whole problem of this status and code; returns its document.
    fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], status, "{document}");
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["type"], format!("urn:otpost:problem:{code}"));
        assert!(document["title"].is_string(), "{document}");
        assert_eq!(document["message"], document["title"], "{document}");
        let instance = document["instance"].as_str().unwrap();
        let id = instance.strip_prefix("urn:otpost:request:").unwrap();
        assert_eq!(id.len(), 32, "{instance}");
        self.assert_secured();
        if status == 503 {
            assert!(self.header("retry-after").parse::<u32>().unwrap() > 0);
        }
        document
    }

    /// Fails unless the headers are there that every answer has.
    fn assert_secured(&self) {
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("referrer-policy"), "no-referrer");
        let policy = self.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!self.headers.contains_key("server"));
    }

    /// The document without the one member that differs from request to request.
    fn without_instance(&self) -> String {
        let document = self.json();
        let instance = document["instance"].as_str().unwrap();
        self.text().replace(instance, "")
    }
}
