//! The headers that every answer has, whatever its status.

use std::time::Duration;

use otpost::otp::api_key::ApiKeyHash;
use otpost::store::{Admission, Verdict};

use super::{Answer, Bench, incorrect};
use crate::support::fakes::{FakeQueue, FakeStore, Mood};

const STATUS: &str = "/otp/requests/raebagbafaydqqcikbmga2dqpca";
const JSON: (&str, &str) = ("content-type", "application/json");
const VERIFY: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;

fn bench(mood: Mood, verdict: Verdict, url: &str) -> Bench {
    let mut store = FakeStore::new(verdict);
    store.mood = mood;
    Bench::build(store, FakeQueue::new(), |api| {
        api.public_url = String::from(url);
        api.cors_origins = vec!["https://app.example.com".to_owned()];
    })
}

/// One answer of every status that the API has.
async fn answers(url: &str) -> Vec<Answer> {
    let usual = bench(Mood::Works, incorrect(), url);
    let right = bench(Mood::Works, Verdict::Correct, url);
    let down = bench(Mood::Down, incorrect(), url);
    let panicking = bench(Mood::Panics, incorrect(), url);
    let locked = Bench::refusing_but(|api| {
        api.public_url = String::from(url);
        api.gate.api_keys = vec![ApiKeyHash::of(b"otpost_abc")];
    });
    let mut full = FakeStore::new(incorrect());
    full.admission = Admission::Refused {
        retry_after: Duration::from_secs(30),
    };
    let full = Bench::build(full, FakeQueue::new(), |api| {
        api.public_url = String::from(url);
    });
    let preflight = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "POST"),
    ];
    let (endless, large) = (format!("/{}", "a".repeat(2_048)), "x".repeat(8_193));
    vec![
        usual.get("/").await,
        usual.get("/openapi.json").await,
        right.post("/otp/verify", VERIFY).await,
        usual
            .post("/otp/generate", r#"{"email":"a@example.org"}"#)
            .await,
        usual.send("OPTIONS", "/otp/verify", &preflight, "").await,
        usual.post("/otp/verify", "{").await,
        locked.post("/otp/verify", VERIFY).await,
        usual.get("/nothing").await,
        usual.get(STATUS).await,
        usual.get("/otp/verify").await,
        usual.post("/otp/verify", large).await,
        usual.get(&endless).await,
        usual.send("POST", "/otp/verify", &[], VERIFY).await,
        usual.post("/otp/verify", VERIFY).await,
        full.post("/otp/generate", r#"{"email":"a@example.org"}"#)
            .await,
        panicking.send("POST", "/otp/verify", &[JSON], VERIFY).await,
        down.post("/otp/verify", VERIFY).await,
    ]
}

#[tokio::test]
async fn every_status_has_the_security_headers_and_none_names_the_server() {
    let answers = answers("").await;
    let statuses: Vec<u16> = answers
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect();
    let expected = [
        200, 200, 200, 202, 204, 400, 401, 404, 404, 405, 413, 414, 415, 422, 429, 500, 503,
    ];
    assert_eq!(statuses, expected);
    for answer in answers {
        answer.assert_secured();
        for absent in [
            "server",
            "x-powered-by",
            "strict-transport-security",
            "set-cookie",
        ] {
            assert!(!answer.headers.contains_key(absent), "{absent}");
        }
    }
}

#[tokio::test]
async fn a_service_behind_tls_asks_browsers_to_stay_there() {
    for answer in answers("https://otp.example.org").await {
        answer.assert_secured();
        let asked = answer.header("strict-transport-security");
        assert_eq!(asked, "max-age=31536000", "{}", answer.status);
    }
}
