//! On the embedded backend a request is one transaction, and many share few commits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use futures::future::join_all;
use otpost::api::intake::{OneStep, TwoSteps};
use otpost::api::server::Peer;
use otpost::api::{self, Api};
use otpost::otp::clock::SystemClock;
use otpost::otp::code::OsEntropy;
use otpost::otp::keys::KeyRing;
use otpost::queue::sqlite::SqliteQueue;
use otpost::queue::{JobQueue, QueueLimits, Sources};
use otpost::sqlite::Sqlite;
use otpost::store::sqlite::SqliteStore;
use otpost::telemetry::Telemetry;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::contract::store_bench::LIMITED;

const KEY: Option<&str> = Some("8e03978e-40d5-43e8-bc93-6894a57f9324");

const TAKE_JOBS: &str = "DROP TRIGGER refuse";

/// The API on the embedded backend, without a worker.
struct Embedded {
    router: api::Router,
    queue: Arc<SqliteQueue>,
    tasks: TaskTracker,
    sqlite: Sqlite,
    folder: TempDir,
}

impl Embedded {
    async fn open(max_waiting: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&folder.path().join("test.db")).unwrap();
        let (router, queue, tasks) = api_on(&sqlite, max_waiting).await;
        Self {
            router,
            queue,
            tasks,
            sqlite,
            folder,
        }
    }

    async fn generate(&self, email: &str) -> StatusCode {
        self.generate_under(email, None).await.status()
    }

    async fn generate_under(&self, email: &str, key: Option<&str>) -> Response<Body> {
        let mut request = Request::post("/otp/generate");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .extension(Peer(SocketAddr::from(([127, 0, 0, 1], 50_000))));
        let body = Body::from(format!("{{\"email\":\"{email}\"}}"));
        let answer = self.router.clone().oneshot(request.body(body).unwrap());
        answer.await.unwrap()
    }

    async fn waiting(&self) -> u64 {
        self.queue.counts().await.unwrap().waiting
    }

    /// Lets every insertion of a job fail until [`TAKE_JOBS`] runs on the connection beside the
    /// writer's that is returned.
    fn refusing_jobs(&self) -> rusqlite::Connection {
        let second = rusqlite::Connection::open(self.folder.path().join("test.db")).unwrap();
        second
            .execute_batch(
                "CREATE TRIGGER refuse BEFORE INSERT ON job
                 BEGIN SELECT RAISE(ABORT, 'no job is taken'); END",
            )
            .unwrap();
        second
    }
}

fn queue_limits(max_waiting: u64) -> QueueLimits {
    QueueLimits {
        concurrency: 1,
        attempt_deadline: Duration::from_secs(8),
        lease: Duration::from_secs(12),
        max_waiting,
        keep_completed: Duration::ZERO,
        keep_failed: Duration::ZERO,
        keep_failed_count: 0,
    }
}

async fn api_on(sqlite: &Sqlite, max_waiting: u64) -> (api::Router, Arc<SqliteQueue>, TaskTracker) {
    let (clock, telemetry) = (Arc::new(SystemClock), Arc::new(Telemetry::default()));
    let sources = Sources {
        clock: clock.clone(),
        entropy: Arc::new(OsEntropy),
        telemetry: telemetry.clone(),
    };
    let queue = Arc::new(
        SqliteQueue::open(sqlite.clone(), queue_limits(max_waiting), sources)
            .await
            .unwrap(),
    );
    let store = SqliteStore::new(sqlite.clone(), LIMITED, clock);
    let two_steps = TwoSteps {
        store: Arc::new(store.clone()),
        queue: queue.clone(),
        global: None,
        telemetry: telemetry.clone(),
    };
    let tasks = TaskTracker::new();
    let router = api::router(Api {
        store: Arc::new(store.clone()),
        queue: queue.clone(),
        intake: Arc::new(OneStep {
            store,
            queue: queue.clone(),
            two_steps,
        }),
        keys: Arc::new(KeyRing::new(&[1; 32], &[], &[2; 32])),
        policy: LIMITED,
        smtputf8: false,
        resend_in: Duration::from_secs(30),
        entropy: Arc::new(OsEntropy),
        telemetry,
        gate: api::client::Gate::default(),
        breaker: Arc::default(),
        tasks: tasks.clone(),
        cors_origins: Vec::new(),
        public_url: String::new(),
        development: None,
    });
    (router, queue, tasks)
}

/// Lets every request on this thread run as far as it can while the writer is busy.
async fn handed_to_the_writer() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn sixty_four_generates_at_once_make_fewer_than_16_commits() {
    let api = Embedded::open(1_000).await;
    // The writer is busy while the requests arrive, as it is with a slow disk.
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let busy = api.sqlite.run(move |_| Ok(gate.recv().is_ok()));
    let before = api.sqlite.commits();
    let generate = async |number| api.generate(&format!("person{number}@example.org")).await;
    let answers = async {
        let all = join_all((0..64).map(generate));
        let release = async {
            handed_to_the_writer().await;
            release.send(()).unwrap();
        };
        tokio::join!(all, release).0
    };
    let (busy, answers) = tokio::join!(busy, answers);
    assert!(busy.unwrap());
    for answer in answers {
        assert_eq!(answer, StatusCode::ACCEPTED);
    }
    assert_eq!(api.waiting().await, 64);
    let commits = api.sqlite.commits() - before;
    assert!(commits < 16, "{commits} commits");
}

#[tokio::test]
async fn a_generate_with_limits_is_one_commit() {
    let api = Embedded::open(1_000).await;
    let before = api.sqlite.commits();
    assert_eq!(api.generate("ann@example.org").await, StatusCode::ACCEPTED);
    assert_eq!(api.sqlite.commits() - before, 1);
    assert_eq!(api.waiting().await, 1);
    assert_eq!(
        api.generate("ann@example.org").await,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(api.waiting().await, 1, "no job of a refused mail");
}

#[tokio::test]
async fn an_insertion_that_fails_leaves_nothing_of_the_admission() {
    let api = Embedded::open(1).await;
    let second = api.refusing_jobs();
    let answer = api.generate("ann@example.org").await;
    assert_eq!(answer, StatusCode::SERVICE_UNAVAILABLE);
    second.execute_batch(TAKE_JOBS).unwrap();
    // Neither the cooldown of the address nor the only place of the queue is taken.
    assert_eq!(api.generate("ann@example.org").await, StatusCode::ACCEPTED);
    assert_eq!(api.waiting().await, 1);
}

#[tokio::test]
async fn a_refused_mail_gives_its_place_in_the_queue_back() {
    let api = Embedded::open(2).await;
    assert_eq!(api.generate("ann@example.org").await, StatusCode::ACCEPTED);
    for _ in 0..3 {
        let again = api.generate("ann@example.org").await;
        assert_eq!(again, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(api.generate("bob@example.org").await, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_mail_that_the_full_queue_did_not_take_is_not_counted() {
    let api = Embedded::open(1).await;
    assert_eq!(api.generate("ann@example.org").await, StatusCode::ACCEPTED);
    for _ in 0..2 {
        let full = api.generate("bob@example.org").await;
        assert_eq!(full, StatusCode::SERVICE_UNAVAILABLE);
    }
    let refused = api.generate("ann@example.org").await;
    assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS, "limits speak first");
}

#[tokio::test]
async fn a_job_that_is_committed_runs_though_its_caller_has_gone() {
    let api = Embedded::open(1_000).await;
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let busy = api.sqlite.run(move |_| Ok(gate.recv().is_ok()));
    let mut call = Box::pin(api.generate("ann@example.org"));
    let mut busy = Box::pin(busy);
    let _ = (futures::poll!(&mut busy), futures::poll!(&mut call));
    drop(call);
    release.send(()).unwrap();
    assert!(busy.await.unwrap());
    api.tasks.close();
    api.tasks.wait().await;
    assert_eq!(api.waiting().await, 1);
}

#[tokio::test]
async fn a_request_that_may_be_repeated_is_one_commit_and_repeated_at_once() {
    let api = Embedded::open(1).await;
    let before = api.sqlite.commits();
    let first = api.generate_under("ann@example.org", KEY).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    assert_eq!(api.sqlite.commits() - before, 1);
    // Even though the queue is full now.
    let again = api.generate_under("ann@example.org", KEY).await;
    assert_eq!(again.status(), StatusCode::ACCEPTED);
    assert_eq!(again.headers()["location"], first.headers()["location"]);
    assert_eq!(api.waiting().await, 1);
}

#[tokio::test]
async fn a_request_that_was_not_taken_leaves_no_record_of_its_key() {
    let api = Embedded::open(1).await;
    let second = api.refusing_jobs();
    let failed = api.generate_under("ann@example.org", KEY).await;
    assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
    second.execute_batch(TAKE_JOBS).unwrap();
    assert_eq!(api.generate("bob@example.org").await, StatusCode::ACCEPTED);
    let full = api.generate_under("ann@example.org", KEY).await;
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    let records = "SELECT count(*) FROM idempotency";
    let records: u32 = second.query_row(records, [], |row| row.get(0)).unwrap();
    assert_eq!(records, 0);
}
