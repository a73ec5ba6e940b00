//! A verify that fails, on a real socket and a real store: the answer is the same to the byte, whatever
//! the cause.

use std::sync::Arc;

use otpost::api::client::Gate;
use otpost::otp::network::Network;
use otpost::store::{Cause, OtpStore, Verdict};
use rstest::rstest;
use serde_json::json;

use super::Bench as Api;
use super::running::{Running, limits};
use crate::contract::store_bench::Backend::{Cluster, Redis, Sqlite};
use crate::contract::store_bench::{ALL_LIMITED, Backend, Bench, LIFETIME, Who, keys, other_than};

const WRONG: Verdict = Verdict::Incorrect(Cause::Wrong);
/// Where every client has failed before, so that all have the same left of their own limits.
const ELSEWHERE: &str = "elsewhere";
/// How often; so many failures at one mailbox are a client's share.
const BEFORE: usize = 5;

/// A code that somebody hands in.
struct Typed {
    cause: &'static str,
    email: &'static str,
    context: &'static str,
    code: String,
}

/// Codes that were mailed, and what has become of them.
struct Scene {
    bench: Bench,
    store: Arc<dyn OtpStore>,
}

impl Scene {
    /// Mails a code for a mailbox and a context.
    async fn mail(&self, email: &str, context: &str) -> (Who, String) {
        let who = self.bench.who(email, context);
        let mailed = self.bench.issue(&*self.store, who, context).await;
        (who, mailed.code)
    }

    /// Spends all attempts of a code.
    async fn spend(&self, email: &str, context: &str) -> String {
        let (who, code) = self.mail(email, context).await;
        for _ in 0..ALL_LIMITED.attempts {
            assert_eq!(self.verify(who, &other_than(&[&code])).await, WRONG);
        }
        code
    }

    async fn verify(&self, who: Who, code: &str) -> Verdict {
        self.bench.verify(&*self.store, who, code).await
    }

    /// Every cause for a verify to fail, at a mailbox of its own.
    async fn causes(&self) -> Vec<Typed> {
        let typed = |cause, email, context, code| Typed {
            cause,
            email,
            context,
            code,
        };
        let (_, expired) = self.mail("expired@example.org", "").await;
        self.bench.clock.advance(LIFETIME);
        let (used_by, used) = self.mail("used@example.org", "").await;
        assert_eq!(self.verify(used_by, &used).await, Verdict::Correct);
        let attempts_spent = self.spend("attempts@example.org", "").await;
        let (_, live) = self.mail("live@example.org", "").await;
        let (_, elsewhere) = self.mail("context@example.org", "login").await;
        let (_, not_compared) = self.mail("budget@example.org", "").await;
        // As many failures as a mailbox has in an hour.
        self.spend("budget@example.org", "one").await;
        self.spend("budget@example.org", "two").await;
        let (_, beyond_share) = self.mail("share@example.org", "").await;
        self.mail("share@example.org", ELSEWHERE).await;
        let never = String::from("012345");
        let longer = format!("{live}00");
        let wrong = other_than(&[&live]);
        vec![
            typed("never asked for", "never@example.org", "", never),
            typed("wrong", "live@example.org", "", wrong),
            typed("wrong and longer", "live@example.org", "", longer),
            typed("expired", "expired@example.org", "", expired),
            typed("used", "used@example.org", "", used),
            typed("attempts spent", "attempts@example.org", "", attempts_spent),
            typed("other context", "context@example.org", "logout", elsewhere),
            typed("budget spent", "budget@example.org", "", not_compared),
            typed("share spent", "share@example.org", "", beyond_share),
        ]
    }
}

/// Hands in a code as this client, and returns the bytes of the answer without the two parts that
/// differ from one request to the next.
async fn answer(
    running: &Running,
    client: usize,
    email: &str,
    context: &str,
    code: &str,
) -> String {
    let mut body = json!({"email": email, "otp": code});
    if !context.is_empty() {
        body["context"] = context.into();
    }
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "POST /otp/verify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.{client}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = running.exchange(request.as_bytes()).await;
    let date = between(&answer, "\r\ndate: ", "\r\n");
    let id = between(&answer, "\"instance\":\"urn:otpost:request:", "\"");
    answer.replace(date, "").replace(id, "")
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).expect(text);
    rest.split_once(end).expect(text).0
}

#[rstest]
#[tokio::test]
async fn the_answer_to_a_failed_verify_is_the_same_to_the_byte_whatever_the_cause(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_with(backend, ALL_LIMITED).await;
    let store = bench.store().await;
    let api = Api::refusing_but(|api| {
        api.store = store.clone();
        api.keys = Arc::new(keys(1));
        api.policy = ALL_LIMITED;
        api.gate = Gate {
            trusted_proxies: vec![Network::parse("127.0.0.1").unwrap()],
            ..Gate::default()
        };
    });
    let running = Running::start(api.router, limits()).await;
    let mut answers: Vec<String> = Vec::new();
    for (client, typed) in (Scene { bench, store }).causes().await.iter().enumerate() {
        for _ in 0..BEFORE {
            answer(&running, client, typed.email, ELSEWHERE, "999999").await;
        }
        let told = answer(&running, client, typed.email, typed.context, &typed.code).await;
        let first = answers.first().unwrap_or(&told);
        assert_eq!(told, *first, "{}", typed.cause);
        answers.push(told);
    }
    for part in [
        "HTTP/1.1 422 ",
        "\"OTP is incorrect\"",
        "failures-1h\";r=14",
    ] {
        assert!(answers[0].contains(part), "{part}: {}", answers[0]);
    }
    // The causes were what they are said to be, with what went before them.
    let metrics = api.telemetry.encode();
    let without_code = 5 + (answers.len() - 1) * BEFORE;
    for (outcome, count) in [
        ("no_live_code", without_code),
        ("wrong", 2 + BEFORE),
        ("budget_spent", 2),
    ] {
        let line = format!("otpost_otp_verifies_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    running.end().await;
}
