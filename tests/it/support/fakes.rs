//! A store and a queue that do what a test tells them, for tests of the HTTP side alone. Whatever
//! shows the whole flow runs on the real backends.

use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use async_trait::async_trait;
use otpost::otp::clock::UnixMillis;
use otpost::otp::keys::KeyMarks;
use otpost::queue::job::{JobData, RequestId};
use otpost::queue::{Counts, EnqueueError, Handler, JobQueue, JobState, Phase, QueueError};
use otpost::store::{
    Admission, AdmitRequest, AttestError, Cause, Check, EndState, Ending, Evaluated, IssueRequest,
    Issued, OtpStore, StoreError, Verdict, VerifyRequest,
};
use tokio_util::sync::CancellationToken;

/// What a fake does with every call.
#[derive(Clone, Copy)]
pub enum Mood {
    /// Answers.
    Works,
    /// Fails at once.
    Down,
    /// Never answers.
    Hangs,
    /// Panics.
    Panics,
}

impl Mood {
    async fn obey<T, E>(self, answer: T, error: E) -> Result<T, E> {
        match self {
            Self::Works => Ok(answer),
            Self::Down => Err(error),
            Self::Hangs => pending().await,
            Self::Panics => panic!("the fake was told to panic"),
        }
    }
}

/// A store that gives one verdict and remembers what it was asked.
pub struct FakeStore {
    pub mood: Mood,
    pub verdict: Verdict,
    pub admission: Admission,
    pub admitted: Mutex<Vec<AdmitRequest>>,
    pub given_back: Mutex<Vec<AdmitRequest>>,
    pub ended: Option<EndState>,
    /// How often it says that it knows of no ending before it knows of `ended`.
    pub ends_late: AtomicU32,
    pub verifies: Mutex<Vec<VerifyRequest>>,
}

impl FakeStore {
    pub fn new(verdict: Verdict) -> Self {
        Self {
            mood: Mood::Works,
            verdict,
            admission: Admission::Granted,
            admitted: Mutex::default(),
            given_back: Mutex::default(),
            ended: None,
            ends_late: AtomicU32::new(0),
            verifies: Mutex::new(Vec::new()),
        }
    }

    fn down() -> StoreError {
        StoreError::Unavailable("the fake is down".to_owned())
    }
}

#[async_trait]
impl OtpStore for FakeStore {
    async fn attest(&self, _marks: &KeyMarks) -> Result<(), AttestError> {
        Ok(())
    }

    async fn issue(&self, _request: &IssueRequest) -> Result<Issued, StoreError> {
        Err(Self::down())
    }

    async fn admit(&self, request: &AdmitRequest) -> Result<Admission, StoreError> {
        self.admitted.lock().unwrap().push(*request);
        self.mood.obey(self.admission, Self::down()).await
    }

    async fn give_back(&self, request: &AdmitRequest) -> Result<(), StoreError> {
        self.given_back.lock().unwrap().push(*request);
        self.mood.obey((), Self::down()).await
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<Check, StoreError> {
        self.verifies.lock().unwrap().push(request.clone());
        let is_wrong = self.verdict == Verdict::Incorrect(Cause::Wrong);
        let check = Check {
            verdict: self.verdict,
            evaluated: Evaluated {
                normal: if is_wrong { 2 } else { 0 },
                stepped: 0,
            },
        };
        self.mood.obey(check, Self::down()).await
    }

    async fn finish(&self, _id: &str, _ending: Ending) -> Result<(), StoreError> {
        Err(Self::down())
    }

    async fn ending(&self, _id: &str) -> Result<Option<Ending>, StoreError> {
        let count_down = |left: u32| left.checked_sub(1);
        let is_late = self
            .ends_late
            .fetch_update(SeqCst, SeqCst, count_down)
            .is_ok();
        let ending = self.ended.filter(|_| !is_late).map(|state| Ending {
            state,
            requested_at: UnixMillis(1_790_000_000_000),
            ended_at: UnixMillis(1_790_000_001_250),
        });
        self.mood.obey(ending, Self::down()).await
    }

    async fn count_unconfirmed(&self, _job: &str) -> Result<u32, StoreError> {
        Err(Self::down())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.mood.obey((), Self::down()).await
    }
}

/// A queue that remembers its jobs and runs none.
pub struct FakeQueue {
    pub mood: Mood,
    pub is_full: bool,
    pub phase: Option<Phase>,
    pub jobs: Mutex<Vec<(RequestId, JobData)>>,
}

impl FakeQueue {
    pub fn new() -> Self {
        Self {
            mood: Mood::Works,
            is_full: false,
            phase: None,
            jobs: Mutex::new(Vec::new()),
        }
    }

    fn down() -> QueueError {
        QueueError::Unavailable("the fake is down".to_owned())
    }
}

#[async_trait]
impl JobQueue for FakeQueue {
    async fn enqueue(&self, id: &RequestId, data: &JobData) -> Result<(), EnqueueError> {
        if self.is_full {
            return Err(EnqueueError::Full);
        }
        self.mood.obey((), Self::down()).await?;
        self.jobs.lock().unwrap().push((id.clone(), data.clone()));
        Ok(())
    }

    async fn state(&self, _id: &RequestId) -> Result<Option<JobState>, QueueError> {
        let state = self.phase.map(|phase| JobState {
            phase,
            requested_at: UnixMillis(1_790_000_000_000),
        });
        self.mood.obey(state, Self::down()).await
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        let counts = Counts {
            waiting: 3,
            ..Counts::default()
        };
        self.mood.obey(counts, Self::down()).await
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.mood.obey((), Self::down()).await
    }

    async fn clean(&self) -> Result<(), QueueError> {
        self.mood.obey((), Self::down()).await
    }

    async fn work(&self, _handler: Handler, stop: CancellationToken) -> Result<(), QueueError> {
        stop.cancelled().await;
        Ok(())
    }
}
