//! A queue on either backend, a worker on it, and a handler that reports to the test.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use otpost::otp::address::{ChallengeId, EmailAddress};
use otpost::otp::clock::SystemClock;
use otpost::otp::code::{Entropy, NoEntropy, OsEntropy};
use otpost::otp::keys::KeyRing;
use otpost::queue::bullmq::BullmqQueue;
use otpost::queue::job::{Job, JobData, RequestId};
use otpost::queue::sqlite::SqliteQueue;
use otpost::queue::{
    Counts, Handler, JobQueue, JobState, Outcome, Phase, QueueError, QueueLimits, Sources,
};
use otpost::redis_link::{Encryption, RedisLink, RedisNode, RedisServers, RedisTarget};
use otpost::sqlite::{OpenError, Sqlite};
use otpost::telemetry::Telemetry;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::redis_server::RedisServer;

/// The name and the prefix of the queue on BullMQ.
pub const NAME: &str = "otp";
pub const PREFIX: &str = "bull";

/// Longer than anything that a test waits for; only a test that fails meets it.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Bullmq,
}

/// Limits that no test meets by accident.
pub const LIMITS: QueueLimits = QueueLimits {
    concurrency: 50,
    attempt_deadline: Duration::from_secs(8),
    lease: Duration::from_secs(12),
    max_waiting: 100_000,
    keep_completed: Duration::ZERO,
    keep_failed: Duration::from_secs(86_400),
    keep_failed_count: 10_000,
};

/// Chance that always comes out the same, so that every wait before a retry is known.
struct Chance(u64);

impl Entropy for Chance {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), NoEntropy> {
        let bytes = self.0.to_le_bytes();
        for (place, byte) in buffer.iter_mut().zip(bytes.iter().cycle()) {
            *place = *byte;
        }
        Ok(())
    }
}

/// The place where the jobs are, without a queue on it yet.
pub struct Bench {
    pub redis: Option<RedisServer>,
    folder: TempDir,
    pub telemetry: Arc<Telemetry>,
    pub limits: QueueLimits,
    pub wait: Duration,
}

impl Bench {
    pub async fn new(backend: Backend) -> Self {
        let redis = match backend {
            Backend::Sqlite => None,
            Backend::Bullmq => Some(RedisServer::start().await),
        };
        Self {
            redis,
            folder: tempfile::tempdir().unwrap(),
            telemetry: Arc::new(Telemetry::default()),
            limits: LIMITS,
            wait: Duration::from_millis(50),
        }
    }

    /// A queue on the jobs that are there, as a process that starts would have it.
    pub async fn open(&self) -> Arc<dyn JobQueue> {
        match &self.redis {
            None => Arc::new(self.open_sqlite().await),
            Some(_) => Arc::new(self.open_bullmq().await),
        }
    }

    async fn open_sqlite(&self) -> SqliteQueue {
        let path = self.folder.path().join("test.db");
        let opening = async {
            loop {
                // The writer of the queue before may still be ending.
                match Sqlite::open(&path) {
                    Err(OpenError::InUse(_)) => tokio::task::yield_now().await,
                    opened => return opened.unwrap(),
                }
            }
        };
        let sqlite = within(opening).await;
        SqliteQueue::open(sqlite, self.limits, self.sources())
            .await
            .unwrap()
    }

    async fn open_bullmq(&self) -> BullmqQueue {
        let target = self.target();
        let link = RedisLink::connect(&target, Duration::from_secs(2))
            .await
            .unwrap();
        BullmqQueue::connect(target, link, NAME, PREFIX, self.limits, self.sources())
            .await
            .unwrap()
    }

    pub fn server(&mut self) -> &mut RedisServer {
        self.redis.as_mut().unwrap()
    }

    fn target(&self) -> RedisTarget {
        let url = self.redis.as_ref().unwrap().url();
        let (host, port) = url
            .strip_prefix("redis://")
            .unwrap()
            .split_once(':')
            .unwrap();
        RedisTarget {
            servers: RedisServers::Single {
                node: RedisNode {
                    host: host.to_owned(),
                    port: port.parse().unwrap(),
                },
                database: 0,
            },
            user: None,
            password: None,
            encryption: Encryption::None,
        }
    }

    fn sources(&self) -> Sources {
        Sources {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Chance(self.wait.as_millis().try_into().unwrap())),
            telemetry: Arc::clone(&self.telemetry),
        }
    }
}

/// A worker that runs in this test.
pub struct Work {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), QueueError>>,
}

impl Work {
    pub fn start(queue: &Arc<dyn JobQueue>, handler: Handler) -> Self {
        let (queue, stop) = (Arc::clone(queue), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let token = stop.clone();
        tasks.spawn(async move { queue.work(handler, token).await });
        Self { stop, tasks }
    }

    /// Tells it to stop, without waiting.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Whether it has ended already.
    pub fn has_ended(&mut self) -> bool {
        self.tasks.join_next().now_or_never().is_some()
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = within(self.tasks.join_next()).await;
        ended.unwrap().unwrap().unwrap();
    }
}

/// An attempt that the test has been told of, and that waits for the test's answer.
pub struct Attempt {
    pub job: Job,
    answer: tokio::sync::oneshot::Sender<Outcome>,
}

impl Attempt {
    pub fn end(self, outcome: Outcome) {
        let _ = self.answer.send(outcome);
    }

    pub fn done(self) {
        self.end(Outcome::Done);
    }

    pub fn retry(self) {
        self.end(Outcome::Retry {
            reason: "the mail server is busy".to_owned(),
        });
    }
}

/// The attempts that a handler tells of.
pub struct Attempts(mpsc::UnboundedReceiver<Attempt>);

impl Attempts {
    pub async fn next(&mut self) -> Attempt {
        within(self.0.recv()).await.unwrap()
    }

    pub fn none_yet(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

/// A handler that tells of each attempt and waits for the test to end it.
pub fn asking() -> (Handler, Attempts) {
    let (tell, attempts) = mpsc::unbounded_channel();
    let handler: Handler = Arc::new(move |job| {
        let (answer, outcome) = tokio::sync::oneshot::channel();
        let told = tell.send(Attempt { job, answer });
        Box::pin(async move {
            told.ok().unwrap();
            match outcome.await {
                Ok(outcome) => outcome,
                Err(_) => std::future::pending().await,
            }
        })
    });
    (handler, Attempts(attempts))
}

/// A handler that tells of each attempt and ends it as `decide` says.
pub fn deciding(
    decide: impl Fn(&Job) -> Outcome + Send + Sync + 'static,
) -> (Handler, mpsc::UnboundedReceiver<Job>) {
    let (tell, told) = mpsc::unbounded_channel();
    let handler: Handler = Arc::new(move |job| {
        let outcome = decide(&job);
        let _ = tell.send(job);
        Box::pin(async move { outcome })
    });
    (handler, told)
}

pub fn id() -> RequestId {
    RequestId::draw(&OsEntropy).unwrap()
}

pub fn data() -> JobData {
    let keys = KeyRing::new(&[1; 32], &[], &[2; 32]);
    let email = EmailAddress::parse("ada@example.org").unwrap();
    JobData {
        challenge: ChallengeId::of(&keys, &email, ""),
        email,
        locale: None,
    }
}

/// Adds a job and tells its id.
pub async fn add(queue: &Arc<dyn JobQueue>) -> RequestId {
    let id = id();
    queue.enqueue(&id, &data()).await.unwrap();
    id
}

pub async fn phase(queue: &Arc<dyn JobQueue>, id: &RequestId) -> Option<Phase> {
    queue
        .state(id)
        .await
        .unwrap()
        .map(|state: JobState| state.phase)
}

/// Asks for a phase until it is this one.
pub async fn reaches(queue: &Arc<dyn JobQueue>, id: &RequestId, wanted: Option<Phase>) {
    let asking = async {
        while phase(queue, id).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    within(asking).await;
}

/// Asks for the counts until they are these.
pub async fn counts_reach(queue: &Arc<dyn JobQueue>, wanted: Counts) {
    let asking = async {
        while queue.counts().await.unwrap() != wanted {
            tokio::task::yield_now().await;
        }
    };
    within(asking).await;
}

/// Fails the test when this takes too long.
pub async fn within<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, call).await.unwrap()
}
