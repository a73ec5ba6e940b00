//! Addresses beyond ASCII: refused in words unless the service is set up for them.

use rstest::rstest;

use super::{Bench, incorrect};
use crate::support::fakes::{FakeQueue, FakeStore};

#[rstest]
#[case("/otp/generate", r#"{"email":"josé@example.org"}"#)]
#[case("/otp/verify", r#"{"email":"josé@example.org","otp":"012345"}"#)]
#[tokio::test]
async fn an_address_beyond_ascii_is_refused_in_words_that_say_so(
    #[case] path: &str,
    #[case] body: &'static str,
) {
    let bench = Bench::refusing();
    let document = bench.post(path, body).await.problem(400, "invalid_request");
    assert_eq!(document["errors"][0]["pointer"], "#/email");
    let message = document["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("does not support"), "{message}");
    assert!(!document.to_string().contains("jos"), "{document}");
    bench.assert_untouched();
}

#[tokio::test]
async fn where_it_is_set_up_both_ways_of_typing_an_address_are_one() {
    let store = FakeStore::new(incorrect());
    let bench = Bench::build(store, FakeQueue::new(), |api| api.smtputf8 = true);
    for email in ["José@example.org", "jose\u{301}@example.org"] {
        let body = format!(r#"{{"email":"{email}"}}"#);
        assert_eq!(bench.post("/otp/generate", body).await.status, 202);
        let body = format!(r#"{{"email":"{email}","otp":"012345"}}"#);
        bench
            .post("/otp/verify", body)
            .await
            .problem(422, "otp_incorrect");
    }
    let jobs = bench.queue.jobs.lock().unwrap();
    let recipients: Vec<String> = jobs.iter().map(|(_, job)| job.email.recipient()).collect();
    assert_eq!(recipients, ["José@example.org", "jos\u{e9}@example.org"]);
    let verifies = bench.store.verifies.lock().unwrap();
    assert_eq!(verifies[0].challenge, verifies[1].challenge);
}
