//! Many durable answers share few commits on the embedded backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header::CONTENT_TYPE};
use futures::future::join_all;
use otpost::api::server::Peer;
use otpost::api::{self, Api};
use otpost::otp::clock::SystemClock;
use otpost::otp::code::OsEntropy;
use otpost::otp::keys::KeyRing;
use otpost::otp::policy::{Policy, Resend, StepUp};
use otpost::queue::sqlite::SqliteQueue;
use otpost::queue::{JobQueue, QueueLimits, Sources};
use otpost::sqlite::Sqlite;
use otpost::store::sqlite::SqliteStore;
use otpost::telemetry::Telemetry;
use tower::ServiceExt;

/// The API on the embedded backend, without a worker, and its queue.
async fn api_on(sqlite: &Sqlite) -> (api::Router, Arc<SqliteQueue>) {
    let policy = Policy {
        digits: 6,
        lifetime: Duration::from_secs(600),
        attempts: 5,
        resend: Resend::Keep,
        limits: None,
        step_up: StepUp::Digits8,
    };
    let limits = QueueLimits {
        concurrency: 1,
        attempt_deadline: Duration::from_secs(8),
        lease: Duration::from_secs(12),
        max_waiting: 1_000,
        keep_completed: Duration::ZERO,
        keep_failed: Duration::ZERO,
        keep_failed_count: 0,
    };
    let (clock, telemetry) = (Arc::new(SystemClock), Arc::new(Telemetry::default()));
    let sources = Sources {
        clock: clock.clone(),
        entropy: Arc::new(OsEntropy),
        telemetry: telemetry.clone(),
    };
    let queue = Arc::new(
        SqliteQueue::open(sqlite.clone(), limits, sources)
            .await
            .unwrap(),
    );
    let router = api::router(Api {
        store: Arc::new(SqliteStore::new(sqlite.clone(), policy, clock)),
        queue: queue.clone(),
        keys: Arc::new(KeyRing::new(&[1; 32], &[], &[2; 32])),
        policy,
        resend_in: Duration::from_secs(30),
        entropy: Arc::new(OsEntropy),
        telemetry,
        gate: api::client::Gate::default(),
        client_limits: true,
        cors_origins: Vec::new(),
        public_url: String::new(),
        development: None,
    });
    (router, queue)
}

#[tokio::test]
async fn sixty_four_generates_at_once_make_fewer_than_16_commits() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(&folder.path().join("test.db")).unwrap();
    let (router, queue) = api_on(&sqlite).await;
    let generate = |number: usize| {
        let body = format!("{{\"email\":\"person{number}@example.org\"}}");
        let request = Request::post("/otp/generate")
            .header(CONTENT_TYPE, "application/json")
            .extension(Peer(SocketAddr::from(([127, 0, 0, 1], 50_000))));
        router
            .clone()
            .oneshot(request.body(Body::from(body)).unwrap())
    };
    // The writer is busy while the requests arrive, as it is with a slow disk.
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let busy = sqlite.run(move |_| Ok(gate.recv().is_ok()));
    let before = sqlite.commits();
    let answers = async {
        let all = join_all((0..64).map(generate));
        let release = async move { release.send(()).unwrap() };
        tokio::join!(all, release).0
    };
    let (busy, answers) = tokio::join!(busy, answers);
    assert!(busy.unwrap());
    for answer in answers {
        assert_eq!(answer.unwrap().status(), StatusCode::ACCEPTED);
    }
    assert_eq!(queue.counts().await.unwrap().waiting, 64);
    let commits = sqlite.commits() - before;
    assert!(commits < 16, "{commits} commits");
}
