//! What the built program does against very many requests and very many wrong codes.

use futures::future::join_all;
use otpost::otp::policy::{Policy, Resend, StepUp};
use otpost::redis_link::{DEADLINE, RedisLink};
use otpost::store::redis::RedisStore;
use otpost::store::{History, OtpStore};
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::support::process::{PATIENCE, Process, Setup};
use crate::support::redis_server::RedisServer;
use crate::support::smtp_server::SmtpServer;

const POLICY: Policy = Policy {
    digits: 6,
    lifetime: Duration::from_secs(600),
    attempts: 5,
    resend: Resend::Keep,
    limits: None,
    client_limits: None,
    step_up: StepUp::Digits8,
};

async fn store(redis: &RedisServer) -> RedisStore {
    let link = RedisLink::connect(&redis.target(), DEADLINE).await.unwrap();
    RedisStore::new(link, POLICY)
}

/// Reads the metrics until one of their lines is this.
async fn shows(process: &Process, wanted: &str) {
    let asking = async {
        loop {
            let metrics = process.ask_ops("/metrics").await.text().await.unwrap();
            if metrics.lines().any(|line| line == wanted) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap();
}

async fn generate(process: &Process, address: String) -> StatusCode {
    let body = json!({"email": address});
    process.post("/otp/generate", &body).await.status()
}

#[rstest]
#[case::sqlite(false)]
#[case::redis(true)]
#[tokio::test]
async fn of_a_thousand_requests_a_hundred_a_minute_are_within_a_budget_of_that(
    #[case] on_redis: bool,
) {
    let smtp = SmtpServer::start().await;
    let redis = RedisServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url())
        .with("limits.global.per_minute", "100")
        .with("limits.domain.per_minute", "1000000")
        .with("limits.address.cooldown", "1h")
        .with("limits.client.enabled", "false");
    if on_redis {
        setup = setup.on_redis(&redis.url());
    }
    let process = setup.start().await;
    let begin = Instant::now();
    // Who is refused by the address takes nothing of the others' budget.
    let again = generate(&process, "hammered@example.org".to_owned()).await;
    assert_eq!(again, StatusCode::ACCEPTED);
    for _ in 0..200 {
        let again = generate(&process, "hammered@example.org".to_owned()).await;
        assert_eq!(again, StatusCode::TOO_MANY_REQUESTS);
    }
    let mut counts = [0, 0];
    for round in 0..20 {
        let asking = (0..50).map(|number| format!("person{round}-{number}@example.org"));
        let answers = join_all(asking.map(|address| generate(&process, address))).await;
        for answer in answers {
            match answer {
                StatusCode::ACCEPTED => counts[0] += 1,
                StatusCode::SERVICE_UNAVAILABLE => counts[1] += 1,
                other => panic!("{other}"),
            }
        }
    }
    let [accepted, refused] = counts;
    // On a machine so slow that it takes minutes there is room again in each of them.
    let minutes = begin.elapsed().as_secs() / 60 + 1;
    assert!(
        accepted >= 99 && accepted < 100 * minutes,
        "{accepted} in {minutes} minutes"
    );
    shows(
        &process,
        &format!(
            "otpost_otp_requests_ended_total{{outcome=\"sent\"}} {}",
            accepted + 1
        ),
    )
    .await;
    shows(&process, "otpost_queue_jobs{state=\"waiting\"} 0").await;
    shows(
        &process,
        &format!("otpost_limit_refusals_total{{limit=\"global\"}} {refused}"),
    )
    .await;
}

#[rstest]
#[case::a_domain("true", "otpost_limit_refusals_total{limit=\"domain\"} 1", 1)]
#[case::switched_off("false", "otpost_otp_requests_ended_total{outcome=\"sent\"} 2", 2)]
#[tokio::test]
async fn a_domain_gets_its_mails_a_minute_and_no_more_unless_limits_are_off(
    #[case] limits: &str,
    #[case] metric: &str,
    #[case] mails: usize,
) {
    let smtp = SmtpServer::start().await;
    let process = Setup::mailing_to(&smtp.url())
        .with("limits.domain.per_minute", "1")
        .with("limits.enabled", limits)
        .start()
        .await;
    for name in ["ada", "bob"] {
        let id = process.generate(&format!("{name}@example.org")).await;
        let state = if name == "ada" || mails > 1 {
            "sent"
        } else {
            "retrying"
        };
        process.wait_for_state(&id, state).await;
    }
    shows(&process, metric).await;
    assert_eq!(smtp.count("DATA"), mails);
    let id = process.generate("ada@example.com").await;
    process.wait_for_state(&id, "sent").await;
}

#[tokio::test]
async fn more_than_500_unresolved_failures_step_up_an_untouched_address() {
    let (smtp, redis) = (SmtpServer::start().await, RedisServer::start().await);
    let store = store(&redis).await;
    store.note_unresolved(500).await.unwrap();
    let process = Setup::mailing_to(&smtp.url())
        .on_redis(&redis.url())
        .start()
        .await;
    shows(&process, "otpost_breaker_open 0").await;
    process.generate("ada@example.org").await;
    assert_eq!(smtp.next_mail().await.code().len(), 6);

    store.note_unresolved(1).await.unwrap();
    shows(&process, "otpost_breaker_open 1").await;
    process.generate("bob@example.org").await;
    let code = smtp.next_mail().await.code();
    assert_eq!(code.len(), 8);
    let (status, _) = process.verify("bob@example.org", &code).await;
    assert_eq!(status, StatusCode::OK);

    store.note_unresolved(-501).await.unwrap();
    shows(&process, "otpost_breaker_open 0").await;
    let (_, written) = process.stop().await;
    assert_eq!(
        written.matches("the breaker opened").count(),
        1,
        "{written}"
    );
    assert_eq!(
        written.matches("the breaker closed").count(),
        1,
        "{written}"
    );
}

#[tokio::test]
async fn a_process_that_stops_tells_the_wrong_codes_that_no_success_followed() {
    let (smtp, redis) = (SmtpServer::start().await, RedisServer::start().await);
    let process = Setup::mailing_to(&smtp.url())
        .on_redis(&redis.url())
        .start()
        .await;
    for (address, wrong, is_right) in [("ada", 3, true), ("bob", 2, false)] {
        let address = format!("{address}@example.org");
        process.generate(&address).await;
        let code = smtp.next_mail().await.code();
        let other = if code == "000000" { "000001" } else { "000000" };
        for _ in 0..wrong {
            process.verify(&address, other).await;
        }
        if is_right {
            let (status, _) = process.verify(&address, &code).await;
            assert_eq!(status, StatusCode::OK);
        }
    }
    let (status, written) = process.stop().await;
    assert!(status.success(), "{written}");
    let history = store(&redis).await.note_unresolved(0).await.unwrap();
    let expected = History {
        last_day: 2,
        usual_day: 0,
    };
    assert_eq!(history, expected);
}

/// Connections of one peer that say nothing.
async fn say_nothing(process: &Process, address: [u8; 4], number: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..number {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        silent.push(socket.connect(process.api()).await.unwrap());
    }
    silent
}

#[tokio::test]
async fn more_connections_than_there_are_files_keep_nobody_else_from_an_answer() {
    let process = Setup::bare().with_open_files(128, 300).start().await;
    let mut silent = Vec::new();
    for last in 2..5 {
        silent.push(say_nothing(&process, [127, 0, 0, last], 120).await);
    }
    // It waits behind all of those until it is accepted.
    process.generate("ada@example.org").await;
    let ready = process.ask_ops("/readyz").await;
    assert_eq!(ready.status(), StatusCode::OK);
    let metrics = process.ask_ops("/metrics").await.text().await.unwrap();
    let refused = "otpost_http_connections_refused_total{reason=\"one_peer\"} ";
    assert!(metrics.contains(refused), "{metrics}");
    drop(silent);
    let (_, written) = process.stop().await;
    assert!(written.contains("the limit of open files"), "{written}");
    assert!(!written.contains("http listener"), "{written}");
}
