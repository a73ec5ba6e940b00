//! Whatever happens to Redis in the middle of a request: no success, no limit skipped, and back at
//! work at once when Redis is.

use std::time::Duration;

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;
use tokio::time::Instant;

use crate::support::process::{PATIENCE, Process, Setup};
use crate::support::proxy::{Cut, Proxy};
use crate::support::redis_server::RedisServer;
use crate::support::smtp_server::SmtpServer;

/// Service is back so soon after Redis is.
const BACK: Duration = Duration::from_secs(2);
const WRONG: &str = "00000000";

/// An API process behind a proxy, and beside it a process that mails.
struct Stage {
    smtp: SmtpServer,
    redis: RedisServer,
    proxy: Proxy,
    api: Process,
    worker: Process,
}

impl Stage {
    async fn new() -> Self {
        let (smtp, redis) = (SmtpServer::start().await, RedisServer::start().await);
        let proxy = Proxy::before(redis.node().port).await;
        let setup = |url: &str| {
            Setup::mailing_to(&smtp.url())
                .on_redis(url)
                .with("otp.digits", "8")
                .with("limits.address.cooldown", "0s")
                .with("limits.client.enabled", "false")
        };
        let worker = setup(&redis.url()).in_role("worker").start().await;
        let api = setup(&proxy.url()).in_role("api").start().await;
        Self {
            smtp,
            redis,
            proxy,
            api,
            worker,
        }
    }

    async fn generate(&self, email: &str) -> StatusCode {
        let body = json!({ "email": email });
        self.api.post("/otp/generate", &body).await.status()
    }

    async fn verify(&self, email: &str, code: &str) -> StatusCode {
        self.api.verify(email, code).await.0
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

    /// Ready, and a whole flow works, within 2 s.
    async fn is_back(&self, email: &str) {
        let begin = Instant::now();
        let ready = async {
            for process in [&self.api, &self.worker] {
                while process.ask_ops("/readyz").await.status() != StatusCode::OK {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, ready)
            .await
            .expect("ready again");
        let code = self.code(email).await;
        assert_eq!(self.verify(email, &code).await, 200);
        assert!(begin.elapsed() < BACK, "{:?}", begin.elapsed());
    }
}

/// Each call that a request makes is cut in turn, until there is none left to cut.
#[rstest]
#[case(Cut::BeforeSending)]
#[case(Cut::AfterAnswer)]
#[tokio::test(flavor = "multi_thread")]
async fn a_generate_that_loses_a_call_is_a_503_and_what_was_counted_stays_counted(
    #[case] cut: Cut,
) {
    let stage = Stage::new().await;
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verify_that_loses_its_call_is_a_503_and_counts_if_redis_heard_it() {
    let stage = Stage::new().await;
    let (ada, bob) = ("ada@example.org", "bob@example.org");
    let (code, other) = (stage.code(ada).await, stage.code(bob).await);
    assert_eq!(stage.verify(bob, WRONG).await, 422);
    for (email, code) in [(bob, WRONG), (ada, code.as_str())] {
        stage.proxy.cut(0, Cut::BeforeSending);
        assert_eq!(stage.verify(email, code).await, 503);
        assert!(!stage.proxy.call_off());
        stage.is_back(&format!("flow.before.{email}")).await;
        stage.proxy.cut(0, Cut::AfterAnswer);
        assert_eq!(stage.verify(email, code).await, 503);
        assert!(!stage.proxy.call_off());
        stage.is_back(&format!("flow.after.{email}")).await;
    }
    // What Redis heard used the code up; what it did not hear was no success either.
    assert_eq!(stage.verify(ada, &code).await, 422);
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
    stage.proxy.cut(0, Cut::BeforeSending);
    assert_eq!(stage.verify(eve, &code).await, 503);
    stage.is_back("flow@example.org").await;
    assert_eq!(stage.verify(eve, &code).await, 200);
}

/// It hangs with the request in its hands, and dies then.
#[rstest]
#[case::generate(false)]
#[case::verify(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_in_the_middle_of_a_request_is_a_503(#[case] verifies: bool) {
    let mut stage = Stage::new().await;
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
