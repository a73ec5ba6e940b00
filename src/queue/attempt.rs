//! One attempt at a job, the same on every backend: a hard deadline, panics held back, the wait
//! before the next attempt. What the handler says decides; what becomes of the job is the
//! backend's part.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::job::{self, Job};
use super::{Handler, Outcome, Sources};
use crate::otp::code::Entropy;
use crate::otp::pace::spread;
use crate::otp::policy::backoff;
use crate::telemetry::Telemetry;

/// The chance that stands in when the source of random bytes fails: the first wait is 1 s then.
const EVEN_CHANCE: u64 = 1_000;

/// Runs attempts and tells about them.
#[derive(Clone)]
pub struct Attempts {
    deadline: Duration,
    entropy: Arc<dyn Entropy>,
    telemetry: Arc<Telemetry>,
}

/// What the backend is to do with a job after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forget it, or keep it as completed for a while.
    Done,
    /// Run it again.
    Retry {
        /// Why.
        reason: String,
        /// How long it has to wait first.
        after: Duration,
    },
    /// Keep it as failed.
    Fail {
        /// Why.
        reason: String,
    },
}

impl Attempts {
    /// Attempts that end after `deadline` at the latest.
    pub fn new(deadline: Duration, sources: &Sources) -> Self {
        Self {
            deadline,
            entropy: Arc::clone(&sources.entropy),
            telemetry: Arc::clone(&sources.telemetry),
        }
    }

    /// Runs one attempt. A handler that panics or does not end costs this attempt and nothing else.
    pub async fn run(&self, handler: &Handler, job: Job) -> Verdict {
        let (masked, attempt) = (job::mask(&job.id), job.attempt);
        let started = Instant::now();
        // The handler is called inside of the future, since the call alone can panic.
        let guarded = AssertUnwindSafe(async { handler(job).await }).catch_unwind();
        let outcome = match tokio::time::timeout(self.deadline, guarded).await {
            Ok(Ok(outcome)) => outcome,
            // What a panic says may repeat the job's data, so it is not passed on.
            Ok(Err(_said)) => Outcome::Retry {
                reason: "the attempt panicked".to_owned(),
            },
            Err(_) => Outcome::Retry {
                reason: format!("the attempt did not end within {:?}", self.deadline),
            },
        };
        let took = started.elapsed();
        match outcome {
            Outcome::Done => {
                self.telemetry.attempt_ended("done", took);
                Verdict::Done
            }
            Outcome::Later { reason, after } => {
                let after = spread(after, self.chance());
                self.telemetry.attempt_ended("later", took);
                self.telemetry.job_delayed(&masked, attempt, &reason, after);
                Verdict::Retry { reason, after }
            }
            Outcome::Retry { reason } => {
                let after = backoff(attempt, self.chance());
                self.telemetry.attempt_ended("retry", took);
                self.telemetry.job_retried(&masked, attempt, &reason, after);
                Verdict::Retry { reason, after }
            }
            Outcome::Fail { reason } => {
                self.telemetry.attempt_ended("fail", took);
                self.telemetry.job_failed(&masked, attempt, &reason);
                Verdict::Fail { reason }
            }
        }
    }

    fn chance(&self) -> u64 {
        let mut bytes = [0; 8];
        match self.entropy.fill(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(error) => {
                self.telemetry.part_failed("queue", &error);
                EVEN_CHANCE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;
    use crate::otp::clock::{SystemClock, UnixMillis};
    use crate::otp::code::NoEntropy;

    struct Chance(u64);

    impl Entropy for Chance {
        fn fill(&self, buffer: &mut [u8]) -> Result<(), NoEntropy> {
            buffer.copy_from_slice(&self.0.to_le_bytes());
            Ok(())
        }
    }

    async fn verdict<F>(attempt: u32, handler: F) -> (Verdict, String)
    where
        F: Fn(Job) -> BoxFuture<'static, Outcome> + Send + Sync + 'static,
    {
        let telemetry = Arc::new(Telemetry::default());
        let sources = Sources {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Chance(1_234)),
            telemetry: Arc::clone(&telemetry),
        };
        let job = Job {
            id: "rabcdefghijklmnop".to_owned(),
            data: serde_json::Value::Null,
            requested_at: UnixMillis(0),
            attempt,
        };
        let handler: Handler = Arc::new(handler);
        let verdict = Attempts::new(Duration::from_secs(8), &sources)
            .run(&handler, job)
            .await;
        (verdict, telemetry.encode())
    }

    #[tokio::test]
    async fn an_outcome_becomes_the_verdict_and_is_counted() {
        let (done, counted) = verdict(1, |_| Box::pin(async { Outcome::Done })).await;
        assert_eq!(done, Verdict::Done);
        assert!(counted.contains("otpost_job_attempts_total{outcome=\"done\"} 1"));
        let failing = |_| -> BoxFuture<'static, Outcome> {
            Box::pin(async {
                Outcome::Fail {
                    reason: "no such mailbox".to_owned(),
                }
            })
        };
        let (failed, counted) = verdict(1, failing).await;
        assert!(matches!(failed, Verdict::Fail { reason } if reason == "no such mailbox"));
        assert!(counted.contains("otpost_job_attempts_total{outcome=\"fail\"} 1"));
    }

    #[tokio::test]
    async fn a_retry_waits_as_chance_and_attempt_say() {
        let retrying = |_| -> BoxFuture<'static, Outcome> {
            Box::pin(async {
                Outcome::Retry {
                    reason: "busy".to_owned(),
                }
            })
        };
        let (retried, _) = verdict(1, retrying).await;
        assert!(
            matches!(retried, Verdict::Retry { after, .. } if after == Duration::from_millis(1_234))
        );
    }

    #[tokio::test]
    async fn a_job_that_has_to_wait_does_so_without_a_back_off_whatever_its_attempt() {
        let waiting = |_| -> BoxFuture<'static, Outcome> {
            Box::pin(async {
                Outcome::Later {
                    reason: "its turn has not come".to_owned(),
                    after: Duration::from_secs(20),
                }
            })
        };
        for attempt in [1, 2, 30] {
            let (delayed, counted) = verdict(attempt, waiting).await;
            let Verdict::Retry { after, .. } = delayed else {
                panic!("{delayed:?}")
            };
            assert_eq!(after, Duration::from_millis(21_234));
            assert!(counted.contains("otpost_job_attempts_total{outcome=\"later\"} 1"));
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_retry_that_does_not_repeat_what_was_said() {
        let (early, _) = verdict(1, |_| panic!("ada@example.org")).await;
        let (late, counted) = verdict(1, |_| Box::pin(async { panic!("ada@example.org") })).await;
        assert_eq!(early, late);
        assert!(matches!(late, Verdict::Retry { reason, .. } if reason == "the attempt panicked"));
        assert!(counted.contains("otpost_job_attempts_total{outcome=\"retry\"} 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_never_ends_is_cut_at_the_deadline() {
        let started = Instant::now();
        let (cut, _) = verdict(1, |_| Box::pin(std::future::pending())).await;
        assert_eq!(started.elapsed().as_secs(), 8);
        assert!(matches!(cut, Verdict::Retry { reason, .. } if reason.contains("8s")));
    }
}
