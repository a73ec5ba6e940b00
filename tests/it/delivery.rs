//! What becomes of a job: the processor with a real store and a transport that a test directs.

mod pace;
mod step_up;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use otpost::config::Sender;
use otpost::mailer::error::{Cause, Failure, MailError, Reply, Step};
use otpost::mailer::template::Templates;
use otpost::mailer::transport::Transport;
use otpost::mailer::{Letterhead, Mailer, Message};
use otpost::otp::address::{ChallengeId, EmailAddress, LimitId};
use otpost::otp::clock::Clock;
use otpost::otp::code::{Code, OsEntropy};
use otpost::otp::keys::KeyRing;
use otpost::otp::policy::Policy;
use otpost::processor::Processor;
use otpost::queue::Outcome;
use otpost::queue::job::Job;
use otpost::sqlite::Sqlite;
use otpost::store::sqlite::SqliteStore;
use otpost::store::{EndState, OtpStore, Verdict, VerifyRequest};
use otpost::telemetry::Telemetry;
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::contract::store_bench::{LIFETIME, POLICY};
use crate::support::clock::ManualClock;

/// Does what it was told, then accepts.
#[derive(Default)]
struct Directed {
    answers: Mutex<VecDeque<MailError>>,
    messages: Mutex<Vec<Message>>,
}

#[async_trait]
impl Transport for Directed {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        self.messages.lock().unwrap().push(message.clone());
        self.answers.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }
}

struct Stage {
    processor: Processor,
    store: Arc<SqliteStore>,
    transport: Arc<Directed>,
    clock: Arc<ManualClock>,
    keys: Arc<KeyRing>,
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with(POLICY)
    }

    /// A stage whose database needs no disk, where the machine has such a place.
    fn with(policy: Policy) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.unwrap();
        let sqlite = Sqlite::open(&folder.path().join("test.db")).unwrap();
        let clock = Arc::new(ManualClock::new());
        let store = Arc::new(SqliteStore::new(sqlite, policy, clock.clone()));
        let keys = Arc::new(KeyRing::new(&[1; 32], &[], &[2; 32]));
        let transport = Arc::new(Directed::default());
        let letterhead = Letterhead {
            sender: Sender::parse("otpost <no-reply@example.com>").unwrap(),
            product: "otpost".to_owned(),
            code_in_subject: false,
        };
        let templates = Templates::load(None).unwrap();
        let mailer = Mailer::new(templates, letterhead, transport.clone(), clock.clone());
        let processor = Processor {
            store: store.clone(),
            mailer: Arc::new(mailer),
            keys: keys.clone(),
            policy,
            domain_per_minute: None,
            breaker: Arc::default(),
            entropy: Arc::new(OsEntropy),
            clock: clock.clone(),
            telemetry: Arc::new(Telemetry::default()),
            mail_time: Duration::from_secs(5),
        };
        Self {
            processor,
            store,
            transport,
            clock,
            keys,
            folder,
        }
    }

    /// A job of this id that is requested now.
    fn job(&self, id: &str) -> Job {
        self.job_with(id, json!({"email": "ada@example.org"}))
    }

    fn job_with(&self, id: &str, data: Value) -> Job {
        Job {
            id: id.to_owned(),
            data,
            requested_at: self.clock.now(),
            attempt: 1,
        }
    }

    /// What the next mails meet.
    fn direct(&self, answers: impl IntoIterator<Item = MailError>) {
        self.transport.answers.lock().unwrap().extend(answers);
    }

    /// All mails so far: their codes, Message-IDs and texts.
    fn mails(&self) -> Vec<(String, String, String)> {
        let messages = self.transport.messages.lock().unwrap();
        let code = |text: &str| {
            text.split(|character: char| !character.is_ascii_digit())
                .find(|word| word.len() == 6)
                .unwrap()
                .to_owned()
        };
        messages
            .iter()
            .map(|mail| (code(&mail.text), mail.message_id.clone(), mail.text.clone()))
            .collect()
    }

    async fn verify(&self, code: &str) -> Verdict {
        let address = EmailAddress::parse("ada@example.org").unwrap();
        let challenge = ChallengeId::of(&self.keys, &address, "");
        let key = self.keys.current();
        let tag = Code::parse(code, &[6, 8]).unwrap().tag(key, challenge);
        let limit = LimitId::of(&self.keys, &address);
        let request = VerifyRequest {
            limit,
            challenge,
            tags: vec![(key.id(), tag)],
            client: None,
            idempotency: None,
        };
        self.store.verify(&request).await.unwrap().verdict
    }

    async fn end_of(&self, id: &str) -> Option<EndState> {
        self.store
            .ending(id)
            .await
            .unwrap()
            .map(|ending| ending.state)
    }
}

fn reply(step: Step, code: u16) -> Failure {
    Failure {
        step,
        cause: Cause::Reply(Reply::new(code, "")),
    }
}

fn refused() -> MailError {
    MailError::Refused(reply(Step::Recipient, 550))
}

fn unavailable() -> MailError {
    MailError::Unavailable(reply(Step::Connect, 421))
}

fn unconfirmed() -> MailError {
    MailError::Unconfirmed(Failure {
        step: Step::FinalDot,
        cause: Cause::Deadline,
    })
}

fn is_retry(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { .. })
}

#[tokio::test]
async fn an_accepted_mail_ends_the_job_and_its_code_verifies_once() {
    let stage = Stage::new();
    assert_eq!(
        stage.processor.process(stage.job("r1")).await,
        Outcome::Done
    );
    assert_eq!(stage.end_of("r1").await, Some(EndState::Sent));
    let code = stage.mails()[0].0.clone();
    assert_eq!(stage.verify(&code).await, Verdict::Correct);
    assert_ne!(stage.verify(&code).await, Verdict::Correct);
}

#[tokio::test]
async fn a_retry_sends_the_same_code_under_the_same_message_id_and_tells_the_time_left() {
    let stage = Stage::new();
    stage.direct([unavailable()]);
    let job = stage.job("r1");
    assert!(is_retry(&stage.processor.process(job.clone()).await));
    assert_eq!(stage.end_of("r1").await, None);
    stage.clock.advance(Duration::from_secs(61));
    assert_eq!(stage.processor.process(job).await, Outcome::Done);
    let mails = stage.mails();
    assert_eq!((&mails[0].0, &mails[0].1), (&mails[1].0, &mails[1].1));
    assert!(
        mails[0].2.contains("10 minutes") && mails[1].2.contains("8 minutes"),
        "{mails:?}"
    );
}

#[tokio::test]
async fn two_jobs_send_the_same_code_under_two_message_ids() {
    let stage = Stage::new();
    stage.processor.process(stage.job("r1")).await;
    stage.processor.process(stage.job("r2")).await;
    let mails = stage.mails();
    assert_eq!(mails[0].0, mails[1].0);
    assert_ne!(mails[0].1, mails[1].1);
}

#[tokio::test]
async fn a_refused_recipient_ends_the_job_at_once() {
    let stage = Stage::new();
    stage.direct([refused()]);
    let outcome = stage.processor.process(stage.job("r1")).await;
    let Outcome::Fail { reason } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        reason.starts_with("undeliverable") && !reason.contains("ada"),
        "{reason}"
    );
    assert_eq!(stage.end_of("r1").await, Some(EndState::Undeliverable));
}

#[tokio::test]
async fn a_recipient_beyond_ascii_that_the_server_cannot_take_ends_the_job_at_once() {
    let stage = Stage::new();
    let failure = Failure {
        step: Step::Recipient,
        cause: Cause::NoSmtputf8,
    };
    stage.direct([failure.verdict()]);
    let job = stage.job_with("r1", json!({"email": "josé@example.org"}));
    let outcome = stage.processor.process(job).await;
    let Outcome::Fail { reason } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(reason.starts_with("undeliverable: "), "{reason}");
    assert_eq!(stage.end_of("r1").await, Some(EndState::Undeliverable));
}

#[tokio::test]
async fn an_unknown_outcome_is_tried_once_more_and_then_counts_as_sent() {
    let stage = Stage::new();
    stage.direct([unconfirmed(), unconfirmed()]);
    let job = stage.job("r1");
    assert!(is_retry(&stage.processor.process(job.clone()).await));
    assert_eq!(stage.processor.process(job).await, Outcome::Done);
    assert_eq!(stage.end_of("r1").await, Some(EndState::Sent));
    assert_eq!(stage.mails().len(), 2);
}

#[tokio::test]
async fn a_job_requested_before_a_success_mails_nothing_any_more() {
    let stage = Stage::new();
    let late = stage.job("r2");
    stage.processor.process(stage.job("r1")).await;
    stage.clock.advance(Duration::from_secs(6));
    assert_eq!(stage.verify(&stage.mails()[0].0).await, Verdict::Correct);
    assert_eq!(stage.processor.process(late).await, Outcome::Done);
    assert_eq!(stage.end_of("r2").await, Some(EndState::Superseded));
    assert_eq!(stage.mails().len(), 1);
}

#[tokio::test]
async fn a_job_older_than_a_code_lives_mails_nothing() {
    let stage = Stage::new();
    let job = stage.job("r1");
    stage.clock.advance(LIFETIME);
    let outcome = stage.processor.process(job).await;
    assert!(matches!(&outcome, Outcome::Fail { reason } if reason.starts_with("expired")));
    assert_eq!(stage.end_of("r1").await, Some(EndState::Expired));
    assert!(stage.mails().is_empty());
}

#[rstest]
#[case::no_object(json!("ada@example.org"))]
#[case::no_address(json!({}))]
#[case::wrong_address(json!({"email": "ada@"}))]
#[case::nothing(Value::Null)]
#[tokio::test]
async fn a_malformed_job_fails_at_once_and_is_not_repeated_in_its_reason(#[case] data: Value) {
    let stage = Stage::new();
    let outcome = stage.processor.process(stage.job_with("x", data)).await;
    let Outcome::Fail { reason } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        reason.contains("email") && !reason.contains("ada"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_job_of_a_newer_version_is_left_to_a_newer_worker() {
    let stage = Stage::new();
    let data = json!({"v": 2, "email": "ada@example.org"});
    assert!(is_retry(
        &stage.processor.process(stage.job_with("r1", data)).await
    ));
    assert!(stage.mails().is_empty());
}

#[tokio::test]
async fn a_job_that_no_newer_worker_takes_ends_when_its_code_would() {
    let stage = Stage::new();
    let job = stage.job_with("r1", json!({"v": 2, "email": "ada@example.org"}));
    stage.clock.advance(LIFETIME);
    let outcome = stage.processor.process(job).await;
    assert!(matches!(&outcome, Outcome::Fail { reason } if reason.starts_with("expired")));
    assert_eq!(stage.end_of("r1").await, Some(EndState::Expired));
}

#[tokio::test]
async fn a_job_whose_mail_was_sent_is_not_mailed_again_when_only_its_end_was_lost() {
    let stage = Stage::new();
    let job = stage.job("r1");
    stage.processor.process(job.clone()).await;
    let again = Job { attempt: 2, ..job };
    assert_eq!(stage.processor.process(again).await, Outcome::Done);
    assert_eq!(stage.mails().len(), 1);
}

#[tokio::test]
async fn a_mail_must_be_known_to_be_sent_while_there_is_time_to_write_it_down() {
    let stage = Stage::new();
    let earliest = Instant::now() + stage.processor.mail_time;
    stage.processor.process(stage.job("r1")).await;
    let latest = Instant::now() + stage.processor.mail_time;
    let until = stage.transport.messages.lock().unwrap()[0].until;
    assert!((earliest..=latest).contains(&until));
}

#[tokio::test]
async fn a_live_code_of_a_key_that_is_not_listed_is_left_to_who_lists_it() {
    let mut stage = Stage::new();
    stage.processor.process(stage.job("r1")).await;
    stage.processor.keys = Arc::new(KeyRing::new(&[9; 32], &[], &[2; 32]));
    assert!(is_retry(&stage.processor.process(stage.job("r2")).await));
    assert_eq!(stage.mails().len(), 1);
}
