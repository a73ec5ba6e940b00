//! API keys: who gets in, who does not, and what only those who get in are told.

use axum::body::Body;
use futures::stream::pending;
use otpost::api::client::Gate;
use otpost::otp::api_key::ApiKeyHash;
use otpost::queue::Phase;
use otpost::store::{EndState, Verdict};
use rstest::rstest;

use super::{Bench, incorrect};
use crate::support::fakes::{FakeQueue, FakeStore};

const KEYS: [&str; 2] = ["otpost_first", "otpost_second"];
const GENERATE: &str = r#"{"email":"ada@example.org"}"#;
const VERIFY: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;
const STATUS: &str = "/otp/requests/raebagbafaydqqcikbmga2dqpca";
const JSON: (&str, &str) = ("content-type", "application/json");

fn gate() -> Gate {
    let hash = |key: &str| ApiKeyHash::of(key.as_bytes());
    Gate {
        api_keys: KEYS.map(hash).to_vec(),
        ..Gate::default()
    }
}

fn bench_with(store: FakeStore, queue: FakeQueue) -> Bench {
    Bench::build(store, queue, |api| api.gate = gate())
}

fn bench() -> Bench {
    bench_with(FakeStore::new(Verdict::Correct), FakeQueue::new())
}

#[tokio::test]
async fn a_listed_key_opens_every_endpoint() {
    let mut queue = FakeQueue::new();
    queue.phase = Some(Phase::Waiting);
    let bench = bench_with(FakeStore::new(Verdict::Correct), queue);
    for authorization in [
        "Bearer otpost_first",
        "Bearer otpost_second",
        "bearer otpost_first",
        "BEARER   otpost_first ",
    ] {
        let headers = [JSON, ("authorization", authorization)];
        let generated = bench.send("POST", "/otp/generate", &headers, GENERATE);
        assert_eq!(generated.await.status, 202, "{authorization}");
        let verified = bench.send("POST", "/otp/verify", &headers, VERIFY).await;
        assert_eq!(verified.status, 200, "{authorization}");
        let status = bench.send("GET", STATUS, &headers, "").await;
        assert_eq!(status.status, 200, "{authorization}");
    }
}

#[tokio::test]
async fn without_a_listed_key_the_answer_is_401_before_the_body_is_read() {
    let bench = bench();
    let hash = ApiKeyHash::of(b"otpost_first").to_string();
    let with_hash = format!("Bearer {hash}");
    let as_basic = "Basic b3Rwb3N0X2ZpcnN0Og==";
    let authorizations: [&[&str]; 13] = [
        &[],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["otpost_first"],
        &["Bearer otpost_firs"],
        &["Bearer otpost_first1"],
        &["Bearer OTPOST_FIRST"],
        &["Bearer otpost_first, Bearer otpost_first"],
        &["Bearer otpost_first", "Bearer otpost_first"],
        &["Bearer\totpost_first"],
        &[as_basic],
        &[&with_hash],
    ];
    for authorization in authorizations {
        let mut headers: Vec<(&str, &str)> = vec![("otpost-client-ip", "nonsense")];
        headers.extend(authorization.iter().map(|value| ("authorization", *value)));
        for (method, path) in [
            ("POST", "/otp/generate"),
            ("POST", "/otp/verify?otp=012345"),
            ("GET", STATUS),
            ("GET", "/otp/requests/1"),
        ] {
            // Neither a content type nor JSON: none of this is looked at.
            let answer = bench.send(method, path, &headers, "{").await;
            answer.problem(401, "unauthorized");
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, "Bearer realm=\"otpost\"", "{authorization:?}");
            assert!(!answer.text().contains("first"), "{}", answer.text());
        }
    }
    bench.assert_untouched();
}

#[tokio::test]
async fn who_has_no_key_is_not_waited_for() {
    let never = || Body::from_stream(pending::<Result<&str, std::io::Error>>());
    for path in ["/otp/generate", "/otp/verify"] {
        let answer = bench().send("POST", path, &[JSON], never()).await;
        answer.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn what_tells_nothing_needs_no_key() {
    let bench = bench();
    for path in ["/", "/openapi.json"] {
        assert_eq!(bench.get(path).await.status, 200, "{path}");
    }
    bench.get("/nothing").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_key_is_of_no_use_as_soon_as_it_is_not_listed() {
    let headers = [JSON, ("authorization", "Bearer otpost_first")];
    let bench = Bench::refusing_but(|api| {
        api.gate.api_keys = vec![ApiKeyHash::of(b"otpost_second")];
    });
    let answer = bench.send("POST", "/otp/verify", &headers, VERIFY).await;
    answer.problem(401, "unauthorized");
}

#[rstest]
#[case(EndState::Sent, None)]
#[case(EndState::Undeliverable, Some("undeliverable"))]
#[case(EndState::Expired, Some("expired"))]
#[case(EndState::Superseded, Some("superseded"))]
#[tokio::test]
async fn the_reason_of_a_failure_is_told_to_callers_with_a_key(
    #[case] end: EndState,
    #[case] reason: Option<&str>,
) {
    let ended = || {
        let mut store = FakeStore::new(incorrect());
        store.ended = Some(end);
        store
    };
    let headers = [("authorization", "Bearer otpost_second")];
    let answer = bench_with(ended(), FakeQueue::new())
        .send("GET", STATUS, &headers, "")
        .await;
    assert_eq!(answer.json()["reason"].as_str(), reason);
    let open = Bench::with(ended(), FakeQueue::new());
    let answer = open.send("GET", STATUS, &headers, "").await;
    assert!(answer.json().get("reason").is_none(), "{}", answer.text());
}

#[tokio::test]
async fn a_job_that_failed_and_left_no_note_was_the_fault_of_the_service() {
    for (phase, reason) in [
        (Phase::Failed, Some("unavailable")),
        (Phase::Waiting, None),
        (Phase::Completed, None),
    ] {
        let mut queue = FakeQueue::new();
        queue.phase = Some(phase);
        let bench = bench_with(FakeStore::new(incorrect()), queue);
        let headers = [("authorization", "Bearer otpost_first")];
        let answer = bench.send("GET", STATUS, &headers, "").await;
        assert_eq!(answer.json()["reason"].as_str(), reason, "{phase:?}");
    }
}
