//! A store and a queue that do what a test tells them, for tests of the HTTP side alone. Whatever
//! shows the whole flow runs on the real backends.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use otpost::otp::address::LimitId;
use otpost::otp::clock::UnixMillis;
use otpost::otp::keys::KeyMarks;
use otpost::queue::job::{JobData, RequestId};
use otpost::queue::{Counts, EnqueueError, Handler, JobQueue, JobState, Phase, QueueError};
use otpost::store::{
    Admission, AdmitRequest, Admitted, AttestError, Cause, Check, Durability, DurabilityLevel,
    EndState, Ending, Evaluated, GenerateQuotas, History, IssueRequest, Issued, OtpStore, Pace,
    PaceName, Paced, Quota, Repeatable, StoreError, Verdict, VerifyRequest,
};
use tokio::sync::Notify;
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
    pub durability: DurabilityLevel,
    pub admission: Admission,
    pub paced: Paced,
    /// Mails counted under paces and not given back.
    pub pacing: Mutex<Vec<(PaceName, UnixMillis)>>,
    pub generate_quotas: Option<GenerateQuotas>,
    pub failure_quota: Option<Quota>,
    pub admitted: Mutex<Vec<AdmitRequest>>,
    pub given_back: Mutex<Vec<AdmitRequest>>,
    pub noted: Mutex<Vec<String>>,
    pub ended: Option<EndState>,
    /// How often it says that it knows of no ending before it knows of `ended`.
    pub ends_late: AtomicU32,
    pub verifies: Mutex<Vec<VerifyRequest>>,
    /// Set if requests for codes and verifies are held back.
    pub hold: Option<Arc<Hold>>,
}

/// What a test holds back in mid-flight.
#[derive(Default)]
pub struct Hold {
    pub entered: Notify,
    pub release: Notify,
}

impl Hold {
    async fn pass(hold: Option<&Arc<Self>>) {
        if let Some(hold) = hold {
            hold.entered.notify_one();
            hold.release.notified().await;
        }
    }
}

impl FakeStore {
    pub fn new(verdict: Verdict) -> Self {
        Self {
            mood: Mood::Works,
            verdict,
            durability: DurabilityLevel::Always,
            admission: Admission::Granted,
            paced: Paced::Now(UnixMillis(1_790_000_000_000)),
            pacing: Mutex::default(),
            generate_quotas: None,
            failure_quota: None,
            admitted: Mutex::default(),
            given_back: Mutex::default(),
            noted: Mutex::default(),
            ended: None,
            ends_late: AtomicU32::new(0),
            verifies: Mutex::new(Vec::new()),
            hold: None,
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

    async fn admit(&self, request: &AdmitRequest) -> Result<Admitted, StoreError> {
        self.admitted.lock().unwrap().push(request.clone());
        Hold::pass(self.hold.as_ref()).await;
        let admitted = Admitted {
            admission: self.admission.clone(),
            client: self.generate_quotas,
        };
        self.mood.obey(admitted, Self::down()).await
    }

    async fn give_back(&self, request: &AdmitRequest) -> Result<(), StoreError> {
        self.given_back.lock().unwrap().push(request.clone());
        self.mood.obey((), Self::down()).await
    }

    async fn note_enqueued(&self, request: &Repeatable, _limit: LimitId) -> Result<(), StoreError> {
        self.noted.lock().unwrap().push(request.id.clone());
        self.mood.obey((), Self::down()).await
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<Check, StoreError> {
        self.verifies.lock().unwrap().push(request.clone());
        Hold::pass(self.hold.as_ref()).await;
        let is_wrong = self.verdict == Verdict::Incorrect(Cause::Wrong);
        let check = Check {
            verdict: self.verdict,
            evaluated: Evaluated {
                normal: if is_wrong { 2 } else { 0 },
                stepped: 0,
            },
            resolved: if self.verdict == Verdict::Correct {
                3
            } else {
                0
            },
            client: self.failure_quota,
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

    async fn pace(&self, pace: &Pace) -> Result<Paced, StoreError> {
        if let Paced::Now(at) = self.paced {
            self.pacing.lock().unwrap().push((pace.name, at));
        }
        self.mood.obey(self.paced, Self::down()).await
    }

    async fn give_back_pace(&self, name: PaceName, at: UnixMillis) -> Result<(), StoreError> {
        let mut pacing = self.pacing.lock().unwrap();
        let place = pacing.iter().rposition(|each| *each == (name, at));
        pacing.remove(place.unwrap());
        Ok(())
    }

    async fn note_unresolved(&self, _failures: i64) -> Result<History, StoreError> {
        Err(Self::down())
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        let durability = Durability {
            level: self.durability,
            node: "the fake".to_owned(),
        };
        self.mood.obey(durability, Self::down()).await
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
