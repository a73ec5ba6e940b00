//! The whole flow on the built program.

use futures::future::join_all;
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::process::{Process, Setup};
use crate::support::redis_server::RedisServer;
use crate::support::smtp_server::{Act, SmtpServer};

#[tokio::test]
async fn the_greeting_names_the_ports_that_were_taken() {
    let setup = Setup::bare()
        .with("http.listen", "127.0.0.1:0")
        .with("ops.listen", "127.0.0.1:0");
    let (_process, mut lines) = setup.spawn_heard(&["serve"]);
    for (before, path) in [("  API ", "/"), ("  operations ", "/readyz")] {
        let greeting = loop {
            let line = lines.next_line().await.unwrap().expect("a greeting");
            if line.starts_with(before) {
                break line;
            }
        };
        let (_, url) = greeting.split_once("http://").unwrap();
        let address = url.split('/').next().unwrap();
        assert!(!address.ends_with(":0"), "{greeting}");
        let answer = reqwest::get(format!("http://{address}{path}"))
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

/// The digits that stand alone in a mail's text.
fn code_in(text: &str) -> String {
    let digits = |word: &&str| word.len() == 6 && word.bytes().all(|byte| byte.is_ascii_digit());
    text.split(|character: char| !character.is_ascii_alphanumeric())
        .find(digits)
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn without_any_setting_a_code_is_mailed_to_the_mailbox_and_verified_once() {
    let process = Setup::bare().start().await;
    let id = process.generate("ada@example.org").await;
    let mail = process.newest_mail().await;
    assert_eq!(mail["to"], "ada@example.org");
    let code = code_in(mail["text"].as_str().unwrap());
    process.wait_for_state(&id, "sent").await;

    let (status, body) = process.verify("Ada@Example.org", &code).await;
    assert_eq!(
        (status, body),
        (StatusCode::OK, json!({"message": "OTP is correct"}))
    );
    let (status, body) = process.verify("ada@example.org", &code).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(body["title"], "OTP is incorrect");

    let (status, written) = process.stop().await;
    assert!(status.success(), "{status}");
    assert!(
        written.contains("/dev/mailbox"),
        "it says where to click:\n{written}"
    );
}

#[rstest]
#[case::sqlite(false)]
#[case::redis(true)]
#[tokio::test]
async fn nothing_that_is_written_at_trace_level_holds_a_code_an_address_or_a_request_id(
    #[case] on_redis: bool,
) {
    let smtp = SmtpServer::start().await;
    let redis = RedisServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url()).with("log.level", "trace");
    if on_redis {
        setup = setup.on_redis(&redis.url());
    }
    let process = setup.start().await;

    smtp.once(
        "RCPT",
        Act::Reply("451 4.2.1 <canary.person@example.org> try later"),
    );
    let id = process.generate("canary.person@example.org").await;
    let mail = smtp.next_mail().await;
    process.wait_for_state(&id, "sent").await;
    let (wrong, _) = process.verify("canary.person@example.org", "000000").await;
    let (right, _) = process
        .verify("canary.person@example.org", &mail.code())
        .await;
    smtp.always(
        "RCPT",
        Act::Reply("550 5.1.1 <canary.refused@example.org> is unknown"),
    );
    let refused = process.generate("canary.refused@example.org").await;
    process.wait_for_state(&refused, "failed").await;
    let body = json!({"email": "canary.person", "otp": mail.code()});
    process.post("/otp/verify", &body).await;
    let metrics = process.ask_ops("/metrics").await.text().await.unwrap();
    assert_eq!(
        (wrong, right),
        (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::OK)
    );

    let (status, written) = process.stop().await;
    assert!(status.success(), "{status}");
    assert!(
        written.contains("request came to its end"),
        "the log was written:\n{written}"
    );
    for output in [written, metrics] {
        for secret in ["canary", &mail.code(), &id, &refused, "AAECAwQF"] {
            assert!(!output.contains(secret), "{secret} is in\n{output}");
        }
    }
}

#[tokio::test]
async fn no_mail_is_lost_when_the_process_is_killed_while_it_mails() {
    let smtp = SmtpServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url());
    smtp.always("RCPT", Act::Stall);
    let process = setup.start().await;
    process.generate("ada@example.org").await;
    smtp.hears("RCPT").await;
    process.kill().await;

    smtp.relent();
    let process = setup.start().await;
    let mail = smtp.next_mail().await;
    let (status, _) = process.verify("ada@example.org", &mail.code()).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn every_answered_request_outlives_a_kill_right_after_the_answers() {
    const REQUESTS: usize = 64;
    let smtp = SmtpServer::start().await;
    smtp.always("connect", Act::Drop);
    let mut setup = Setup::mailing_to(&smtp.url())
        .with("limits.domain.per_minute", "1000")
        .with("limits.client.enabled", "false");
    let process = setup.start().await;
    let address = |number| format!("person{number}@example.org");
    let generate = |number| {
        let (process, address) = (&process, address(number));
        async move { process.generate(&address).await }
    };
    join_all((0..REQUESTS).map(generate)).await;
    process.kill().await;

    smtp.relent();
    let _process = setup.start().await;
    let mut reached: Vec<String> = Vec::new();
    for _ in 0..REQUESTS {
        reached.extend(smtp.next_mail().await.to);
    }
    reached.sort();
    let mut expected: Vec<String> = (0..REQUESTS).map(address).collect();
    expected.sort();
    assert_eq!(reached, expected);
}

#[rstest]
#[case::sqlite(false)]
#[case::redis(true)]
#[tokio::test]
async fn a_stop_lets_running_mails_end_and_leaves_the_others_queued(#[case] on_redis: bool) {
    let smtp = SmtpServer::start().await;
    let redis = RedisServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url()).with("queue.concurrency", "1");
    if on_redis {
        setup = setup.on_redis(&redis.url());
    }
    let process = setup.start().await;
    smtp.once(".", Act::Stall);
    process.generate("first@example.org").await;
    smtp.hears("DATA").await;
    let waiting = process.generate("second@example.org").await;
    let stopped = process.stop();
    let (status, written) = stopped.await;
    assert!(status.success(), "{status}\n{written}");

    let process = setup.start().await;
    process.wait_for_state(&waiting, "sent").await;
}

#[rstest]
#[case::sqlite(false)]
#[case::redis(true)]
#[tokio::test]
async fn metrics_count_requests_jobs_verifies_and_show_the_depth_of_the_queue(
    #[case] on_redis: bool,
) {
    let smtp = SmtpServer::start().await;
    let redis = RedisServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url());
    if on_redis {
        setup = setup.on_redis(&redis.url());
    }
    let process = setup.start().await;
    let id = process.generate("ada@example.org").await;
    process.wait_for_state(&id, "sent").await;
    process
        .verify("ada@example.org", &smtp.next_mail().await.code())
        .await;
    process.verify("ada@example.org", "000000").await;
    let metrics = process.ask_ops("/metrics").await.text().await.unwrap();
    for line in [
        "otpost_http_requests_total{route=\"/otp/generate\",status=\"202\"} 1",
        "otpost_http_requests_total{route=\"/otp/verify\",status=\"200\"} 1",
        "otpost_http_requests_total{route=\"/otp/verify\",status=\"422\"} 1",
        "otpost_job_attempts_total{outcome=\"done\"} 1",
        "otpost_otp_requests_ended_total{outcome=\"sent\"} 1",
        "otpost_otp_verifies_total{outcome=\"correct\"} 1",
        "otpost_otp_verifies_total{outcome=\"no_live_code\"} 1",
        "otpost_queue_jobs{state=\"waiting\"} 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is missing in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn redis_holds_no_code_no_hash_of_it_and_no_key_of_ours_without_an_end() {
    let smtp = SmtpServer::start().await;
    let redis = RedisServer::start().await;
    let process = Setup::mailing_to(&smtp.url())
        .on_redis(&redis.url())
        .start()
        .await;
    let id = process.generate("ada@example.org").await;
    let code = smtp.next_mail().await.code();
    process.wait_for_state(&id, "sent").await;

    let mut connection = redis.connect().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("otpost:*")
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut longest_code = 0;
    for key in &keys {
        let left: i64 = redis::cmd("PTTL")
            .arg(key)
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!(left > 0, "{key} has no end");
        if key.contains(":c:") {
            longest_code = longest_code.max(left);
        }
    }
    assert!(
        (1..=600_000).contains(&longest_code),
        "the code's key ends in {longest_code} ms"
    );
    drop(process);
    let file = aof(redis.folder());
    let forms = hashes(&code).into_iter().chain([code.into_bytes()]);
    for form in forms {
        let found = file.windows(form.len()).any(|window| window == form);
        assert!(
            !found,
            "{:?} is in Redis' file",
            String::from_utf8_lossy(&form)
        );
    }
}

/// Every command that Redis wrote down, hence every value it ever held.
fn aof(folder: &std::path::Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder.join("appendonlydir")).unwrap();
    let all: Vec<u8> = files
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(
        String::from_utf8_lossy(&all).contains("otpost:"),
        "the file was found"
    );
    all
}

/// The unkeyed hash of a code, as bytes and in the usual writings.
fn hashes(code: &str) -> Vec<Vec<u8>> {
    use sha2::{Digest, Sha256};

    let digest = Sha256::digest(code);
    let texts = [
        data_encoding::HEXLOWER.encode(&digest),
        data_encoding::HEXUPPER.encode(&digest),
        data_encoding::BASE64.encode(&digest),
    ];
    texts
        .into_iter()
        .map(String::into_bytes)
        .chain([digest.to_vec()])
        .collect()
}

#[tokio::test]
async fn unknown_request_ids_and_states_hold_no_secret() {
    let process: Process = Setup::bare().start().await;
    let answer = process
        .get("/otp/requests/raaaaaaaaaaaaaaaaaaaaaaaaaa")
        .await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let id = process.generate("ada@example.org").await;
    process.wait_for_state(&id, "sent").await;
    let state: Value = process
        .get(&format!("/otp/requests/{id}"))
        .await
        .json()
        .await
        .unwrap();
    let members: Vec<&String> = state.as_object().unwrap().keys().collect();
    assert_eq!(members, ["ended_at", "requested_at", "state"]);
}

#[rstest]
#[case::counted("true", "otpost_otp_verifies_total{outcome=\"budget_spent\"} 1")]
#[case::switched_off("false", "otpost_otp_verifies_total{outcome=\"wrong\"} 6")]
#[tokio::test]
async fn one_client_spends_only_its_share_of_the_failures_of_an_address(
    #[case] client_limits: &str,
    #[case] expected: &str,
) {
    let smtp = SmtpServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url()).with("limits.client.enabled", client_limits);
    let process = setup.start().await;
    let guess = |context: &'static str, code: String| {
        let process = &process;
        let wrong = if code == "000000" { "000001" } else { "000000" };
        let body = json!({"email": "ada@example.org", "context": context, "otp": wrong});
        async move { process.post("/otp/verify", &body).await.status() }
    };
    for (context, guesses) in [("one", 5), ("two", 1)] {
        let body = json!({"email": "ada@example.org", "context": context});
        assert_eq!(
            process.post("/otp/generate", &body).await.status(),
            StatusCode::ACCEPTED
        );
        let code = smtp.next_mail().await.code();
        for _ in 0..guesses {
            let status = guess(context, code.clone()).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        }
    }
    let metrics = process.ask_ops("/metrics").await.text().await.unwrap();
    assert!(
        metrics.lines().any(|line| line == expected),
        "{expected} is missing in\n{metrics}"
    );
}
