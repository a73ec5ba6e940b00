//! What the HTTP side makes of `Idempotency-Key`.

use std::time::Duration;

use otpost::api::client::Gate;
use otpost::otp::api_key::ApiKeyHash;
use otpost::store::{Admission, Cause, EndState, Repetition, Verdict};
use rstest::rstest;

use super::{Answer, Bench, incorrect};
use crate::support::fakes::{FakeQueue, FakeStore};

const GENERATE: &str = r#"{"email":"ada@example.org"}"#;
const VERIFY: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;
const KEY: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";
/// Of an earlier request.
const ID: &str = "raebagbafaydqqcikbmga2dqpca";

async fn send(bench: &Bench, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
    let json = ("content-type", "application/json");
    bench
        .send("POST", path, &[&[json], headers].concat(), body.to_owned())
        .await
}

async fn generate(bench: &Bench) -> Answer {
    send(
        bench,
        "/otp/generate",
        GENERATE,
        &[("idempotency-key", KEY)],
    )
    .await
}

fn repeating(repetition: Repetition) -> FakeStore {
    let mut store = FakeStore::new(incorrect());
    store.admission = Admission::Repeated(repetition);
    store
}

fn unfinished() -> FakeStore {
    repeating(Repetition::Unfinished { id: ID.to_owned() })
}

#[rstest]
#[case::too_short("0123456789abcde")]
#[case::too_short_in_quotes("\"0123456789abcde\"")]
#[case::too_long(&"x".repeat(129))]
#[case::empty("")]
#[case::open("\"0123456789abcdef")]
#[case::parameter("\"0123456789abcdef\";a=1")]
#[case::list("\"0123456789abcdef\", \"0123456789abcdef\"")]
#[case::bytes(":MDEyMzQ1Njc4OWFiY2RlZg==:")]
#[case::escape("\"0123456789abcdef\\n\"")]
#[case::beyond_ascii("\"0123456789abcdef\u{e9}\"")]
#[tokio::test]
async fn a_malformed_key_is_refused_before_anything_is_done(#[case] key: &str) {
    for (path, body) in [("/otp/generate", GENERATE), ("/otp/verify", VERIFY)] {
        let bench = Bench::refusing();
        let answer = send(&bench, path, body, &[("idempotency-key", key)]).await;
        let problem = answer.problem(400, "idempotency_key_malformed");
        assert!(key.is_empty() || !problem.to_string().contains(key));
        bench.assert_untouched();
        assert!(bench.store.admitted.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn two_keys_are_malformed() {
    let bench = Bench::refusing();
    let twice = [("idempotency-key", KEY), ("idempotency-key", KEY)];
    let answer = send(&bench, "/otp/generate", GENERATE, &twice).await;
    answer.problem(400, "idempotency_key_malformed");
    bench.assert_untouched();
}

#[tokio::test]
async fn a_request_without_key_is_not_repeatable() {
    let bench = Bench::refusing();
    bench.post("/otp/generate", GENERATE).await;
    bench.post("/otp/verify", VERIFY).await;
    assert_eq!(bench.store.admitted.lock().unwrap()[0].repeatable, None);
    assert_eq!(bench.store.verifies.lock().unwrap()[0].idempotency, None);
    assert!(bench.store.noted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn quotes_make_no_other_key_and_both_endpoints_agree_on_its_caller() {
    let bench = Bench::refusing();
    let quoted = format!("\"{KEY}\"");
    for key in [KEY, &quoted] {
        send(
            &bench,
            "/otp/generate",
            GENERATE,
            &[("idempotency-key", key)],
        )
        .await;
        send(&bench, "/otp/verify", VERIFY, &[("idempotency-key", key)]).await;
    }
    let admitted = bench.store.admitted.lock().unwrap();
    let verifies = bench.store.verifies.lock().unwrap();
    let keys: Vec<_> = admitted
        .iter()
        .map(|mail| mail.repeatable.as_ref().map(|request| request.key))
        .chain(verifies.iter().map(|request| request.idempotency))
        .collect();
    assert!(keys[0].is_some() && keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn address_locale_and_context_make_a_request_and_the_layout_of_its_body_does_not() {
    let bench = Bench::refusing();
    for body in [
        GENERATE,
        r#" { "email" : "ada@EXAMPLE.org" } "#,
        r#"{"email":"Ada@example.org"}"#,
        r#"{"email":"ada@example.org","locale":"de"}"#,
        r#"{"email":"ada@example.org","context":"de"}"#,
        r#"{"email":"ada@example.org","context":"d","locale":"en"}"#,
    ] {
        let answer = send(&bench, "/otp/generate", body, &[("idempotency-key", KEY)]).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let admitted = bench.store.admitted.lock().unwrap();
    let fingerprint = |place: usize| admitted[place].repeatable.as_ref().unwrap().fingerprint;
    assert_eq!(fingerprint(0), fingerprint(1));
    for first in 1..admitted.len() {
        for second in first + 1..admitted.len() {
            assert_ne!(fingerprint(first), fingerprint(second), "{first} {second}");
        }
    }
}

#[tokio::test]
async fn the_key_of_another_caller_is_another_key() {
    let bench = Bench::build(FakeStore::new(incorrect()), FakeQueue::new(), |api| {
        let api_keys = [b"otpost_a", b"otpost_b"].map(|key| ApiKeyHash::of(key));
        api.gate = Gate {
            api_keys: api_keys.to_vec(),
            ..Gate::default()
        };
    });
    for (token, client) in [
        ("Bearer otpost_a", "192.0.2.1"),
        ("Bearer otpost_a", "192.0.2.2"),
        ("Bearer otpost_b", "192.0.2.1"),
    ] {
        let headers = [
            ("authorization", token),
            ("otpost-client-ip", client),
            ("idempotency-key", KEY),
        ];
        send(&bench, "/otp/generate", GENERATE, &headers).await;
    }
    let admitted = bench.store.admitted.lock().unwrap();
    let key = |place: usize| admitted[place].repeatable.as_ref().unwrap().key;
    assert_eq!(key(0), key(1), "the caller is the application");
    assert_ne!(key(0), key(2));
}

#[tokio::test]
async fn an_accepted_request_is_noted_and_answered_alike_when_it_is_repeated() {
    let bench = Bench::refusing();
    let first = generate(&bench).await;
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(bench.store.noted.lock().unwrap()[..], [id.as_str()]);

    let store = repeating(Repetition::Accepted { id });
    let bench = Bench::with(store, FakeQueue::new());
    let again = generate(&bench).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("location"), first.header("location"));
    assert!(bench.queue.jobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unfinished_request_gets_its_job_under_the_same_id() {
    let bench = Bench::with(unfinished(), FakeQueue::new());
    let answer = generate(&bench).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["id"], ID);
    let jobs = bench.queue.jobs.lock().unwrap();
    let ids: Vec<&str> = jobs.iter().map(|(id, _)| id.reveal()).collect();
    assert_eq!(ids, [ID]);
    assert_eq!(*bench.store.noted.lock().unwrap(), [ID]);
}

#[tokio::test]
async fn an_unfinished_request_that_has_ended_gets_no_other_job() {
    let mut store = unfinished();
    store.ended = Some(EndState::Sent);
    let bench = Bench::with(store, FakeQueue::new());
    let answer = generate(&bench).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["id"]),
        (202, &ID.into())
    );
    assert!(bench.queue.jobs.lock().unwrap().is_empty());
    assert_eq!(*bench.store.noted.lock().unwrap(), [ID]);
}

#[tokio::test]
async fn an_unfinished_request_that_meets_a_full_queue_stays_counted_and_unfinished() {
    let mut queue = FakeQueue::new();
    queue.is_full = true;
    let bench = Bench::with(unfinished(), queue);
    generate(&bench).await.problem(503, "backlog_full");
    assert!(bench.store.given_back.lock().unwrap().is_empty());
    assert!(bench.store.noted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_that_the_full_queue_did_not_take_is_given_back_with_its_key() {
    let mut queue = FakeQueue::new();
    queue.is_full = true;
    let bench = Bench::with(FakeStore::new(incorrect()), queue);
    generate(&bench).await.problem(503, "backlog_full");
    let given_back = bench.store.given_back.lock().unwrap();
    assert!(given_back[0].repeatable.is_some());
    assert!(bench.store.noted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_in_flight_says_when_to_come_again_and_another_one_is_told_so() {
    let retry_after = Duration::from_millis(7_001);
    let store = repeating(Repetition::InFlight { retry_after });
    let answer = generate(&Bench::with(store, FakeQueue::new())).await;
    answer.problem(409, "idempotency_key_in_flight");
    let wait: u32 = answer.header("retry-after").parse().unwrap();
    assert!((8..=9).contains(&wait), "{wait}");
    let store = repeating(Repetition::OtherRequest);
    let answer = generate(&Bench::with(store, FakeQueue::new())).await;
    answer.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_repeated_success_looks_like_the_first_and_another_code_like_neither() {
    let ask = async |verdict: Verdict| {
        let bench = Bench::with(FakeStore::new(verdict), FakeQueue::new());
        let key = [("idempotency-key", KEY)];
        (send(&bench, "/otp/verify", VERIFY, &key).await, bench)
    };
    let (first, _) = ask(Verdict::Correct).await;
    let (again, bench) = ask(Verdict::Repeated).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &first.body));
    let metrics = bench.telemetry.encode();
    assert!(metrics.contains("repeated"), "{metrics}");
    let (reused, _) = ask(Verdict::KeyReused).await;
    reused.problem(422, "idempotency_key_reused");
    let (wrong, _) = ask(Verdict::Incorrect(Cause::Wrong)).await;
    wrong.problem(422, "otp_incorrect");
}
