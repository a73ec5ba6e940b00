//! Whatever happens to Redis in the middle of a request: no success, no limit skipped, and back at
//! work at once when Redis is.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use crate::support::process::{PATIENCE, Process, Setup};
use crate::support::proxy::{Cut, Proxy};
use crate::support::redis_server::{RedisServer, free_port};
use crate::support::smtp_server::SmtpServer;

/// Service is back so soon after Redis is.
const BACK: Duration = Duration::from_secs(2);
const WRONG: &str = "00000000";

/// The limits of the client that asks in these tests, where they count.
const REQUESTS: u32 = 60;
const FAILURES: u32 = 16;

/// Which keys a request takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// Those of the mailbox.
    Mailbox,
    /// Those of the client, too, in the same script.
    Client,
    /// Those of the client in a script before: on a cluster.
    ClientApart,
}

/// An API process behind a proxy, and beside it a process that mails.
struct Stage {
    keys: Keys,
    smtp: SmtpServer,
    redis: RedisServer,
    proxy: Proxy,
    api: Process,
    worker: Process,
    /// How many requests the client was granted that no success gave back.
    granted: AtomicU32,
    /// How many wrong codes of the client were answered.
    failed: AtomicU32,
}

impl Stage {
    async fn new(keys: Keys) -> Self {
        let (smtp, port) = (SmtpServer::start().await, free_port());
        let (redis, scheme, prefix) = match keys {
            Keys::ClientApart => {
                let server = RedisServer::start_as_cluster(port).await;
                (server, "redis+cluster", "{bull}")
            }
            Keys::Mailbox | Keys::Client => (RedisServer::start().await, "redis", "bull"),
        };
        let proxy = Proxy::at(port, redis.node().port).await;
        let (requests, failures) = (REQUESTS.to_string(), FAILURES.to_string());
        let setup = |url: &str| {
            Setup::mailing_to(&smtp.url())
                .on_redis(url)
                .with("queue.prefix", prefix)
                .with("otp.digits", "8")
                .with("limits.address.cooldown", "0s")
                .with(
                    "limits.client.enabled",
                    match keys {
                        Keys::Mailbox => "false",
                        Keys::Client | Keys::ClientApart => "true",
                    },
                )
                .with("limits.client.generate_per_10m", &requests)
                .with("limits.client.generate_per_hour", &requests)
                .with("limits.client.distinct_addresses_per_hour", &requests)
                .with("limits.client.verify_failures_per_hour", &failures)
        };
        // It takes the way past the proxy, so that only the calls of the API are cut.
        let worker = setup(&redis.url()).in_role("worker").start().await;
        let api = setup(&format!("{scheme}://127.0.0.1:{port}"));
        let api = api.in_role("api").start().await;
        Self {
            keys,
            smtp,
            redis,
            proxy,
            api,
            worker,
            granted: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }

    /// How many calls a verify makes before the one that looks at the code.
    fn calls_before_the_mailbox(&self) -> usize {
        usize::from(self.keys == Keys::ClientApart)
    }

    async fn generate(&self, email: &str) -> StatusCode {
        let body = json!({ "email": email });
        let status = self.api.post("/otp/generate", &body).await.status();
        if status == 202 {
            self.granted.fetch_add(1, SeqCst);
        }
        status
    }

    async fn verify(&self, email: &str, code: &str) -> StatusCode {
        let status = self.api.verify(email, code).await.0;
        match status.as_u16() {
            200 => drop(self.granted.fetch_sub(1, SeqCst)),
            422 => drop(self.failed.fetch_add(1, SeqCst)),
            _ => {}
        }
        status
    }

    /// Asks and guesses on until the client is refused: no outage has given it more than its limits.
    async fn client_is_within_its_limits(&self) {
        if self.keys == Keys::Mailbox {
            return;
        }
        let more = async {
            while self.verify("nobody@example.org", WRONG).await == 422 {}
            for number in 0.. {
                let email = format!("more.{number}@example.org");
                if self.generate(&email).await == 429 {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, more).await.expect("limits");
        let (granted, failed) = (self.granted.load(SeqCst), self.failed.load(SeqCst));
        assert!(granted <= REQUESTS, "{granted}");
        assert!(failed <= FAILURES, "{failed}");
    }

    async fn code(&self, email: &str) -> String {
        assert_eq!(self.generate(email).await, 202);
        self.mailed(email).await
    }

    /// Mails whose requests were answered 503 may come before: their job was queued all the same.
    async fn mailed(&self, email: &str) -> String {
        loop {
            let mail = self.smtp.next_mail().await;
            if mail.to == [email] {
                return mail.code();
            }
        }
    }

    /// Ready within 2 s, and then a whole flow works.
    async fn is_back(&self, email: &str) {
        let ready = async {
            for process in [&self.api, &self.worker] {
                while process.ask_ops("/readyz").await.status() != StatusCode::OK {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::time::timeout(BACK, ready)
            .await
            .expect("ready again");
        let code = self.code(email).await;
        assert_eq!(self.verify(email, &code).await, 200);
    }
}

/// Each call that a request makes is cut in turn, until there is none left to cut.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_generate_that_loses_a_call_is_a_503_and_what_was_counted_stays_counted(
    #[values(Cut::BeforeSending, Cut::AfterAnswer)] cut: Cut,
    #[values(Keys::Mailbox, Keys::Client, Keys::ClientApart)] keys: Keys,
) {
    let stage = Stage::new(keys).await;
    // From here on the server knows the scripts.
    stage.code("first@example.org").await;
    let (mut calls, mut statuses) = (0, Vec::new());
    loop {
        let email = format!("cut.{calls}@example.org");
        stage.proxy.cut(calls, cut);
        let status = stage.generate(&email).await;
        if stage.proxy.call_off() {
            assert_eq!(status, 202);
            break;
        }
        if status == 202 {
            // The queue may be told twice, since the same id twice is one job; it must have it then.
            stage.mailed(&email).await;
        } else {
            assert_eq!(status, 503, "call {calls}");
        }
        statuses.push(status);
        stage.is_back(&format!("flow.{calls}@example.org")).await;
        let mut taken = u32::from(status == 202);
        while stage.generate(&email).await == 202 {
            taken += 1;
        }
        assert!(
            taken <= 5,
            "{taken} mails in an hour after call {calls} was cut"
        );
        calls += 1;
    }
    assert!(calls >= 2, "a generate counts and enqueues: {statuses:?}");
    assert_eq!(
        statuses[0], 503,
        "what counts is never sent twice: {statuses:?}"
    );
    stage.client_is_within_its_limits().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_verify_that_loses_its_call_is_a_503_and_counts_if_redis_heard_it(
    #[values(Keys::Mailbox, Keys::Client, Keys::ClientApart)] keys: Keys,
) {
    let stage = Stage::new(keys).await;
    let calls = stage.calls_before_the_mailbox();
    let (ada, bob) = ("ada@example.org", "bob@example.org");
    let (code, other) = (stage.code(ada).await, stage.code(bob).await);
    assert_eq!(stage.verify(bob, WRONG).await, 422);
    for (email, code) in [(bob, WRONG), (ada, code.as_str())] {
        stage.proxy.cut(calls, Cut::BeforeSending);
        assert_eq!(stage.verify(email, code).await, 503);
        assert!(!stage.proxy.call_off());
        stage.is_back(&format!("flow.before.{email}")).await;
        stage.proxy.cut(calls, Cut::AfterAnswer);
        assert_eq!(stage.verify(email, code).await, 503);
        assert!(!stage.proxy.call_off());
        stage.is_back(&format!("flow.after.{email}")).await;
    }
    // What Redis heard used the code up; what it did not hear was no success either.
    assert_eq!(stage.verify(ada, &code).await, 422);
    // That success gave the client its request back.
    stage.granted.fetch_sub(1, SeqCst);
    // Two of five attempts are counted: one answered, one heard.
    for _ in 0..3 {
        assert_eq!(stage.verify(bob, WRONG).await, 422);
    }
    assert_eq!(
        stage.verify(bob, &other).await,
        422,
        "the fifth ends the code"
    );
    // One that was never heard is not used up.
    let eve = "eve@example.org";
    let code = stage.code(eve).await;
    stage.proxy.cut(calls, Cut::BeforeSending);
    assert_eq!(stage.verify(eve, &code).await, 503);
    stage.is_back("flow@example.org").await;
    assert_eq!(stage.verify(eve, &code).await, 200);
    stage.client_is_within_its_limits().await;
}

/// It hangs with the request in its hands, and dies then.
#[rstest]
#[case::generate(false)]
#[case::verify(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_in_the_middle_of_a_request_is_a_503(
    #[case] verifies: bool,
    #[values(Keys::Mailbox, Keys::Client)] keys: Keys,
) {
    let mut stage = Stage::new(keys).await;
    let code = stage.code("ada@example.org").await;
    stage.redis.signal("-STOP");
    let api = &stage.api;
    let (email, path) = (
        "ada@example.org",
        if verifies { "verify" } else { "generate" },
    );
    let body = if verifies {
        json!({ "email": email, "otp": code })
    } else {
        json!({ "email": email })
    };
    let path = format!("/otp/{path}");
    let asked = api.post(&path, &body);
    tokio::pin!(asked);
    // The request is under way, and nothing answers it.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut asked).await;
    assert!(early.is_err());
    stage.redis.kill();
    assert_eq!(asked.await.status(), StatusCode::SERVICE_UNAVAILABLE);
    stage.redis.restart().await;
    stage.is_back("bob@example.org").await;
    assert_eq!(stage.verify(email, &code).await, 200, "it was not used up");
}
