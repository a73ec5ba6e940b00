//! What the endpoints answer when all is well.

use std::sync::atomic::AtomicU32;

use otpost::otp::address::{ChallengeId, EmailAddress, LimitId};
use otpost::otp::code::Code;
use otpost::queue::Phase;
use otpost::queue::job::RequestId;
use otpost::store::{Cause, EndState, Verdict};
use rstest::rstest;

use super::{Bench, incorrect, keys};
use crate::support::fakes::{FakeQueue, FakeStore};

const ID: &str = "raebagbafaydqqcikbmga2dqpca";

#[tokio::test]
async fn generate_puts_one_job_on_the_queue_and_says_when_and_where() {
    let bench = Bench::new();
    let body = r#"{"email":"Ada@Example.org","locale":"pt-BR","context":"login"}"#;
    let answer = bench.post("/otp/generate", body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    answer.assert_secured();
    let jobs = bench.queue.jobs.lock().unwrap();
    let [(id, data)] = jobs.as_slice() else {
        panic!("{} jobs", jobs.len());
    };
    let expected = format!(
        r#"{{"message":"OTP is on its way","id":"{}","expires_in":600,"resend_in":30}}"#,
        id.reveal()
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(
        answer.header("location"),
        format!("/otp/requests/{}", id.reveal())
    );
    let email = EmailAddress::parse("ada@example.org").unwrap();
    assert_eq!(data.email.recipient(), "Ada@example.org");
    assert_eq!(data.locale.as_deref(), Some("pt-BR"));
    assert_eq!(data.challenge, ChallengeId::of(&keys(), &email, "login"));
}

#[rstest]
#[case::nowhere_in_particular("", "")]
#[case::a_host("https://otp.example.com", "")]
#[case::a_host_and_a_path("https://example.com:8443/codes/v1", "/codes/v1")]
#[tokio::test]
async fn a_request_is_found_under_the_public_path(#[case] url: &str, #[case] path: &str) {
    let bench = Bench::refusing_but(|api| api.public_url = String::from(url));
    let answer = bench
        .post("/otp/generate", r#"{"email":"ada@example.org"}"#)
        .await;
    let jobs = bench.queue.jobs.lock().unwrap();
    assert_eq!(
        answer.header("location"),
        format!("{path}/otp/requests/{}", jobs[0].0.reveal())
    );
}

#[tokio::test]
async fn every_generate_has_another_id() {
    let bench = Bench::new();
    for _ in 0..20 {
        let body = r#"{"email":"ada@example.org"}"#;
        assert_eq!(bench.post("/otp/generate", body).await.status, 202);
    }
    let jobs = bench.queue.jobs.lock().unwrap();
    let ids: std::collections::HashSet<&RequestId> = jobs.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn verify_asks_the_store_with_a_tag_for_every_key() {
    let bench = Bench::new();
    let body = r#"{"email":"ADA@example.org","otp":"012 345","context":"login"}"#;
    let answer = bench.post("/otp/verify", body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), r#"{"message":"OTP is correct"}"#);
    answer.assert_secured();
    let asked = bench.store.verifies.lock().unwrap();
    let keys = keys();
    let email = EmailAddress::parse("ada@example.org").unwrap();
    let challenge = ChallengeId::of(&keys, &email, "login");
    let code = Code::parse("012345", &[6]).unwrap();
    let tags: Vec<_> = keys
        .all()
        .map(|key| (key.id(), code.tag(key, challenge)))
        .collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].challenge, challenge);
    assert_eq!(asked[0].limit, LimitId::of(&keys, &email));
    assert_eq!(asked[0].tags, tags);
    assert_eq!(tags.len(), 2);
}

#[tokio::test]
async fn a_code_may_have_the_configured_or_the_stepped_up_length() {
    let bench = Bench::new();
    for (otp, status) in [
        ("012345", 200),
        ("01234567", 200),
        ("01-23 45", 200),
        ("0123456", 400),
        ("01234", 400),
        ("", 400),
    ] {
        let body = format!(r#"{{"email":"ada@example.org","otp":"{otp}"}}"#);
        let answer = bench.post("/otp/verify", body).await;
        assert_eq!(answer.status, status, "{otp}");
    }
}

#[tokio::test]
async fn no_answer_tells_why_a_code_is_incorrect() {
    let mut answers = Vec::new();
    for cause in [Cause::Wrong, Cause::NoLiveCode] {
        let bench = Bench::with(FakeStore::new(Verdict::Incorrect(cause)), FakeQueue::new());
        for body in [
            r#"{"email":"ada@example.org","otp":"012345"}"#,
            r#"{"email":"ada@example.org","otp":"01234567"}"#,
            r#"{"email":"grace@example.org","otp":"999999","context":"login"}"#,
        ] {
            let answer = bench.post("/otp/verify", body).await;
            let document = answer.problem(422, "otp_incorrect");
            assert_eq!(document["title"], "OTP is incorrect");
            let mut headers: Vec<_> = answer
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            headers.sort_by(|left, right| left.0.as_str().cmp(right.0.as_str()));
            answers.push((answer.without_instance(), headers));
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[tokio::test]
async fn verifies_and_requests_are_counted() {
    let bench = Bench::with(FakeStore::new(incorrect()), FakeQueue::new());
    let body = r#"{"email":"ada@example.org","otp":"012345"}"#;
    bench.post("/otp/verify", body).await;
    bench.get("/no/such/path").await;
    let metrics = bench.telemetry.encode();
    for line in [
        "otpost_otp_verifies_total{outcome=\"no_live_code\"} 1",
        "otpost_http_requests_total{route=\"/otp/verify\",status=\"422\"} 1",
        "otpost_http_requests_total{route=\"unmatched\",status=\"404\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    assert!(!metrics.contains("such"), "{metrics}");
}

#[rstest]
#[case(EndState::Sent, "sent")]
#[case(EndState::Undeliverable, "failed")]
#[case(EndState::Expired, "failed")]
#[case(EndState::Superseded, "failed")]
#[tokio::test]
async fn an_ended_request_tells_how_and_when(#[case] end: EndState, #[case] word: &str) {
    let mut store = FakeStore::new(incorrect());
    store.ended = Some(end);
    let bench = Bench::with(store, FakeQueue::new());
    let answer = bench.get(&format!("/otp/requests/{ID}")).await;
    assert_eq!(answer.status, 200);
    let expected = format!(
        r#"{{"state":"{word}","requested_at":"2026-09-21T14:13:20.000Z","ended_at":"2026-09-21T14:13:21.250Z"}}"#
    );
    assert_eq!(answer.text(), expected);
    answer.assert_secured();
}

#[rstest]
#[case(Phase::Waiting, "queued")]
#[case(Phase::Active, "sending")]
#[case(Phase::Retrying, "retrying")]
#[case(Phase::Completed, "sent")]
#[case(Phase::Failed, "failed")]
#[tokio::test]
async fn a_request_on_the_queue_tells_where_it_stands(#[case] phase: Phase, #[case] word: &str) {
    let mut queue = FakeQueue::new();
    queue.phase = Some(phase);
    let bench = Bench::with(FakeStore::new(incorrect()), queue);
    let answer = bench.get(&format!("/otp/requests/{ID}")).await;
    let expected = format!(r#"{{"state":"{word}","requested_at":"2026-09-21T14:13:20.000Z"}}"#);
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn a_request_that_ends_while_it_is_looked_up_is_still_found() {
    let mut store = FakeStore::new(incorrect());
    store.ended = Some(EndState::Sent);
    store.ends_late = AtomicU32::new(1);
    let bench = Bench::with(store, FakeQueue::new());
    let answer = bench.get(&format!("/otp/requests/{ID}")).await;
    assert_eq!(answer.json()["state"], "sent");
}

#[tokio::test]
async fn an_unknown_id_is_no_path_and_neither_is_one_of_another_form() {
    let bench = Bench::new();
    let mut bodies = Vec::new();
    for id in [
        ID,
        "1",
        "r",
        "RAEBAGBAFAYDQQCIKBMGA2DQPCA",
        "%ff",
        "a/b",
        "raebagbafaydqqcikbmga2dqpc1",
    ] {
        let answer = bench.get(&format!("/otp/requests/{id}")).await;
        answer.problem(404, "not_found");
        bodies.push(answer.without_instance());
    }
    bodies.push(bench.get("/nothing").await.without_instance());
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn the_landing_page_shows_the_endpoints_and_loads_nothing() {
    let url = "https://otp.example.org/";
    let bench = Bench::refusing_but(|api| api.public_url = String::from(url));
    let answer = bench.get("/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    answer.assert_secured();
    assert!(
        answer
            .text()
            .contains("curl https://otp.example.org/otp/generate")
    );
    for absent in ["{{", "<script", "src=", "/dev/mailbox"] {
        assert!(!answer.text().contains(absent), "{absent}");
    }
    let headers = [("host", "otp.internal:8080\"<script>")];
    let answer = Bench::new().send("GET", "/", &headers, "").await;
    let shown = "curl http://otp.internal:8080&quot;&lt;script&gt;/otp/generate";
    assert!(answer.text().contains(shown), "{}", answer.text());
    let answer = Bench::in_development().get("/").await;
    assert!(answer.text().contains("href=\"/dev/mailbox\""));
}
