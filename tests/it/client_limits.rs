//! The limits of clients on the built program.

use reqwest::{Method, Response, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::process::{Process, Setup};
use crate::support::redis_server::RedisServer;
use crate::support::smtp_server::SmtpServer;

#[rstest]
#[case::sqlite(false)]
#[case::redis(true)]
#[tokio::test]
async fn a_client_has_its_share_and_is_told_while_others_have_theirs(#[case] on_redis: bool) {
    let smtp = SmtpServer::start().await;
    let redis = RedisServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url())
        .with("http.trusted_proxies", "127.0.0.1")
        .with("limits.address.cooldown", "1h");
    if on_redis {
        setup = setup.on_redis(&redis.url());
    }
    let process = setup.start().await;
    let ask = async |client: &str, number: u32| {
        let body = json!({"email": format!("{number}@example.org")});
        post_for(&process, client, "/otp/generate", &body).await
    };
    let header = |answer: &Response, name: &str| {
        let value = answer.headers().get(name).unwrap();
        value.to_str().unwrap().to_owned()
    };
    for number in 0..10 {
        let answer = ask("2001:db8::1", number).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        let left = format!("\"generate-10m\";r={};t=", 9 - number);
        assert!(header(&answer, "ratelimit").starts_with(&left));
    }
    let refused = ask("2001:db8::ffff", 10).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u32 = header(&refused, "retry-after").parse().unwrap();
    assert!(
        (1_800..=3_961).contains(&wait),
        "ten addresses last an hour, not ten minutes: {wait}"
    );
    let standing = header(&refused, "ratelimit");
    assert!(standing.contains("\"addresses-1h\";r=0;t="), "{standing}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], "client_limit_reached");

    let answer = ask("192.0.2.1", 0).await;
    assert_eq!(
        answer.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "the cooldown of the address"
    );
    assert!(answer.headers().get("ratelimit").is_none());
    let answer = ask("192.0.2.1", 11).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(header(&answer, "ratelimit").starts_with("\"generate-10m\";r=9;t="));

    let wrong = json!({"email": "nobody@example.org", "otp": "000000"});
    for left in (0..20).rev() {
        let answer = post_for(&process, "2001:db8::1", "/otp/verify", &wrong).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let standing = format!("\"verify-failures-1h\";r={left};t=");
        assert!(header(&answer, "ratelimit").starts_with(&standing));
    }
    let refused = post_for(&process, "2001:db8::1", "/otp/verify", &wrong).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let metrics = process.ask_ops("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("otpost_limit_refusals_total{limit=\"client\"} 2"),
        "{metrics}"
    );
}

/// Posts as the trusted proxy in front of a client would.
async fn post_for(process: &Process, client: &str, path: &str, body: &Value) -> Response {
    let request = process.request(Method::POST, path);
    let request = request.header("x-forwarded-for", client).json(body);
    request.send().await.unwrap()
}
