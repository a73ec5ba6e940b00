//! How many mails go to one domain, and what becomes of the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use otpost::otp::clock::{Clock, UnixMillis};
use otpost::otp::code::OsEntropy;
use otpost::queue::attempt::{Attempts, Verdict};
use otpost::queue::job::Job;
use otpost::queue::{Handler, Outcome, Sources};
use otpost::store::EndState;
use otpost::telemetry::Telemetry;
use rstest::rstest;
use serde_json::json;

use super::{LIFETIME, Stage, refused, unavailable, unconfirmed};
use crate::support::clock::ManualClock;

const MINUTE: Duration = Duration::from_secs(60);

fn paced(per_minute: u32) -> Stage {
    let mut stage = Stage::new();
    stage.processor.domain_per_minute = Some(per_minute);
    stage
}

fn to(stage: &Stage, id: &str, address: &str) -> Job {
    stage.job_with(id, json!({"email": address}))
}

fn waits(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Later { after, .. } => Some(*after),
        _ => None,
    }
}

/// The worker's part, on a clock that goes from one attempt to the next.
struct Run {
    clock: Arc<ManualClock>,
    attempts: Attempts,
    handler: Handler,
    /// Instants of attempts beyond the first of each job.
    comebacks: Vec<UnixMillis>,
}

impl Run {
    /// Runs jobs until each has ended.
    async fn until_all_ended(&mut self, jobs: Vec<Job>) {
        let mut due: BinaryHeap<Reverse<(UnixMillis, usize, u32)>> = (0..jobs.len())
            .map(|number| Reverse((self.clock.now(), number, 1)))
            .collect();
        while let Some(Reverse((at, number, attempt))) = due.pop() {
            assert!(attempt < 100, "job {number} comes to no end");
            self.clock.advance(at.since(self.clock.now()));
            if attempt > 1 {
                self.comebacks.push(at);
            }
            let job = Job {
                attempt,
                ..jobs[number].clone()
            };
            if let Verdict::Retry { after, .. } = self.attempts.run(&self.handler, job).await {
                due.push(Reverse((at.after(after), number, attempt + 1)));
            }
        }
    }
}

/// The most of these instants, in order, that lie within any span of this length.
fn most_within(instants: &[UnixMillis], span: Duration) -> usize {
    let within = |(number, first): (usize, &UnixMillis)| {
        let end = first.after(span);
        instants[number..]
            .iter()
            .take_while(|at| **at < end)
            .count()
    };
    instants.iter().enumerate().map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn of_a_thousand_addresses_at_one_domain_sixty_a_minute_are_mailed_and_the_others_expire() {
    const JOBS: usize = 1_000;
    let stage = paced(60);
    let mut jobs: Vec<Job> = (0..JOBS)
        .map(|number| {
            let address = format!("{number}@victim.example");
            to(&stage, &format!("r{number}"), &address)
        })
        .collect();
    jobs.push(to(&stage, "other", "ada@example.org"));
    let (processor, clock) = (Arc::new(stage.processor), stage.clock.clone());
    let (store, transport) = (stage.store.clone(), stage.transport.clone());
    let mailed_at = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (mailed, timed) = (mailed_at.clone(), clock.clone());
    let handler: Handler = Arc::new(move |job| {
        let (processor, mailed, clock) = (processor.clone(), mailed.clone(), timed.clone());
        Box::pin(async move {
            let is_other = job.id == "other";
            let outcome = processor.process(job).await;
            if outcome == Outcome::Done && !is_other {
                mailed.lock().unwrap().push(clock.now());
            }
            outcome
        })
    });
    let sources = Sources {
        clock: clock.clone(),
        entropy: Arc::new(OsEntropy),
        telemetry: Arc::new(Telemetry::default()),
    };
    let start = clock.now();
    let mut run = Run {
        clock,
        attempts: Attempts::new(Duration::from_secs(8), &sources),
        handler,
        comebacks: Vec::new(),
    };
    run.until_all_ended(jobs).await;

    let mailed_at = mailed_at.lock().unwrap().clone();
    assert_eq!(most_within(&mailed_at, MINUTE), 60);
    assert!(mailed_at.len() > 9 * 60, "{} mailed", mailed_at.len());
    let mut ends = std::collections::BTreeMap::new();
    for number in 0..JOBS {
        let ending = store_ending(&store, &format!("r{number}")).await;
        *ends.entry(ending.state.name()).or_insert(0) += 1;
    }
    assert_eq!(ends["sent"], mailed_at.len());
    assert_eq!(ends["sent"] + ends["expired"], JOBS);
    let other = store_ending(&store, "other").await;
    assert_eq!((other.state, other.ended_at), (EndState::Sent, start));
    assert_eq!(
        transport.messages.lock().unwrap().len(),
        mailed_at.len() + 1
    );
    let crowd = most_within(&run.comebacks, Duration::from_secs(1));
    assert!(crowd < 60, "{crowd} came back within a second");
}

async fn store_ending(
    store: &otpost::store::sqlite::SqliteStore,
    id: &str,
) -> otpost::store::Ending {
    use otpost::store::OtpStore;
    store.ending(id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_job_whose_domain_had_its_mails_waits_and_another_domain_does_not() {
    let stage = paced(1);
    let process = |job| stage.processor.process(job);
    let first = to(&stage, "r1", "ann@one.example");
    let second = to(&stage, "r2", "bob@one.example");
    let other = to(&stage, "r3", "ann@two.example");
    assert_eq!(process(first).await, Outcome::Done);
    stage.clock.advance(Duration::from_secs(20));
    let outcome = process(second.clone()).await;
    assert_eq!(waits(&outcome), Some(Duration::from_secs(40)));
    let Outcome::Later { reason, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(!reason.contains("one"), "{reason}");
    assert_eq!(process(other).await, Outcome::Done);
    assert_eq!(stage.end_of("r2").await, None);
    let metrics = stage.processor.telemetry.encode();
    assert!(metrics.contains("otpost_limit_refusals_total{limit=\"domain\"} 1"));
    stage.clock.advance(Duration::from_secs(40));
    assert_eq!(process(second).await, Outcome::Done);
    assert_eq!(stage.end_of("r2").await, Some(EndState::Sent));
}

#[tokio::test]
async fn a_mail_that_had_to_wait_has_a_code_with_its_whole_life_before_it() {
    let stage = paced(1);
    stage
        .processor
        .process(to(&stage, "r1", "bob@example.org"))
        .await;
    let late = stage.job("r2");
    assert!(waits(&stage.processor.process(late.clone()).await).is_some());
    stage.clock.advance(9 * MINUTE);
    assert_eq!(stage.processor.process(late).await, Outcome::Done);
    let mails = stage.mails();
    assert!(mails[1].2.contains("10 minutes"), "{}", mails[1].2);
    assert_eq!(
        stage.verify(&mails[1].0).await,
        otpost::store::Verdict::Correct
    );
}

#[tokio::test]
async fn a_job_that_waited_for_longer_than_a_code_lives_is_expired() {
    let stage = paced(1);
    let late = stage.job("r2");
    stage.clock.advance(LIFETIME);
    stage
        .processor
        .process(to(&stage, "r1", "bob@example.org"))
        .await;
    let outcome = stage.processor.process(late).await;
    assert!(matches!(&outcome, Outcome::Fail { reason } if reason.starts_with("expired")));
    assert_eq!(stage.end_of("r2").await, Some(EndState::Expired));
    assert_eq!(stage.mails().len(), 1);
}

#[rstest]
#[case::not_taken(unavailable(), true)]
#[case::refused(refused(), false)]
#[case::unconfirmed(unconfirmed(), false)]
#[tokio::test]
async fn only_a_mail_that_no_server_took_is_given_back(
    #[case] error: otpost::mailer::MailError,
    #[case] is_given_back: bool,
) {
    let stage = paced(1);
    stage.direct([error]);
    stage
        .processor
        .process(to(&stage, "r1", "bob@example.org"))
        .await;
    let next = stage.processor.process(stage.job("r2")).await;
    assert_eq!(next == Outcome::Done, is_given_back, "{next:?}");
    assert_eq!(waits(&next).is_some(), !is_given_back);
}

#[tokio::test]
async fn a_job_that_mails_nothing_takes_no_place() {
    let stage = paced(1);
    let (superseded, too_old) = (stage.job("r2"), stage.job("r3"));
    stage.processor.process(stage.job("r1")).await;
    stage.clock.advance(MINUTE);
    stage.verify(&stage.mails()[0].0).await;
    stage.processor.process(superseded).await;
    assert_eq!(stage.end_of("r2").await, Some(EndState::Superseded));
    stage.clock.advance(LIFETIME * 2);
    stage.processor.process(too_old).await;
    assert_eq!(stage.end_of("r3").await, Some(EndState::Expired));
    let next = stage.processor.process(stage.job("r4")).await;
    assert_eq!(next, Outcome::Done);
}

#[tokio::test]
async fn the_store_is_told_no_domain() {
    let stage = paced(1);
    stage.processor.process(stage.job("r1")).await;
    let folder = stage.folder.path();
    let written: Vec<u8> = std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    let finds = |text: &[u8]| written.windows(text.len()).any(|window| window == text);
    assert!(finds(b"pace") && !finds(b"example.org"));
}
