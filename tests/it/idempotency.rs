//! Requests that are repeated under an idempotency key, on the built program and on real backends.

use std::sync::Arc;

use futures::future::join_all;
use otpost::api::intake::{Intake, TwoSteps};
use otpost::otp::idempotency::{Fingerprint, IN_FLIGHT};
use otpost::store::{Admission, AdmitRequest, IdempotencyId, Repeatable, Repetition};
use reqwest::{Method, Response, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use crate::contract::queue::bench as queues;
use crate::contract::store_bench::{Backend, Bench, LIMITED};
use crate::contract::store_durability::everything_under;
use crate::support::process::{Process, Setup};
use crate::support::redis_server::RedisServer;
use crate::support::smtp_server::SmtpServer;

const KEY: &str = "canary-8e03978e-40d5-43e8-bc93-6894a57f9324";

async fn post(process: &Process, path: &str, body: &Value) -> Response {
    let request = process.request(Method::POST, path).json(body);
    request.header("Idempotency-Key", KEY).send().await.unwrap()
}

/// The status, and the code of a problem or the id of a request.
async fn told(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let told = body.get("code").or(body.get("id")).unwrap_or(&Value::Null);
    (status, told.as_str().unwrap_or_default().to_owned())
}

#[rstest]
#[case::sqlite(false)]
#[case::redis(true)]
#[tokio::test]
async fn fifty_equal_requests_at_once_are_one_job_and_one_mail(#[case] on_redis: bool) {
    let (smtp, redis) = (SmtpServer::start().await, RedisServer::start().await);
    let mut setup = Setup::mailing_to(&smtp.url());
    if on_redis {
        setup = setup.on_redis(&redis.url());
    }
    let process = setup.start().await;
    let ada = json!({"email": "ada@example.org"});
    let answers = join_all((0..50).map(|_| post(&process, "/otp/generate", &ada))).await;
    let mut ids = Vec::new();
    for answer in answers {
        match told(answer).await {
            (202, id) => ids.push(id),
            other => assert_eq!(other, (409, "idempotency_key_in_flight".to_owned())),
        }
    }
    assert!(
        !ids.is_empty() && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );
    let code = smtp.next_mail().await.code();
    process.wait_for_state(&ids[0], "sent").await;

    // Within the cooldown, and after the job has gone from the queue.
    let again = post(&process, "/otp/generate", &ada).await;
    let location = again.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("/otp/requests/{}", ids[0]));
    assert_eq!(told(again).await, (202, ids[0].clone()));
    let german = json!({"email": "ada@example.org", "locale": "de"});
    let reused = (422, "idempotency_key_reused".to_owned());
    assert_eq!(
        told(post(&process, "/otp/generate", &german).await).await,
        reused
    );

    let right = json!({"email": "ada@example.org", "otp": code});
    let wrong = json!({"email": "ada@example.org", "otp": "00000000"});
    let mut successes = Vec::new();
    for _ in 0..3 {
        let answer = post(&process, "/otp/verify", &right).await;
        assert_eq!(answer.status(), StatusCode::OK);
        successes.push(answer.bytes().await.unwrap());
    }
    assert!(successes.iter().all(|body| *body == successes[0]));
    assert_eq!(
        told(post(&process, "/otp/verify", &wrong).await).await,
        reused
    );
    let (without_key, _) = process.verify("ada@example.org", &code).await;
    assert_eq!(without_key, StatusCode::UNPROCESSABLE_ENTITY);

    // Another mail comes after all that could have come before it.
    process.generate("bob@example.org").await;
    assert_eq!(smtp.next_mail().await.to, ["bob@example.org"]);
    let folder = setup.folder().to_owned();
    let (_, written) = process.stop().await;
    assert!(!written.contains("canary"), "{written}");
    for folder in [folder.as_path(), redis.folder()] {
        let bytes = everything_under(folder);
        assert!(!bytes.windows(9).any(|part| part == b"canary-8e"));
    }
}

#[rstest]
#[case::sqlite(Backend::Sqlite, queues::Backend::Sqlite)]
#[case::redis(Backend::Redis, queues::Backend::Bullmq)]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_note_was_lost_is_the_same_job_again(
    #[case] store: Backend,
    #[case] queue: queues::Backend,
) {
    let (bench, jobs) = (
        Bench::open_with(store, LIMITED).await,
        queues::Bench::new(queue).await,
    );
    let (store, queue) = (bench.store().await, jobs.open().await);
    let intake = TwoSteps {
        store: store.clone(),
        queue: queue.clone(),
        global: None,
        telemetry: Arc::default(),
    };
    let (ann, data, first) = (bench.ann(), queues::data(), queues::id());
    let mail = |id: &str| AdmitRequest {
        repeatable: Some(Repeatable {
            key: IdempotencyId::of(&bench.keys, b"caller", ann.limit, KEY),
            fingerprint: Fingerprint([1; 16]),
            id: id.to_owned(),
        }),
        ..ann.mail()
    };
    // All that a process does that dies before the note.
    let admitted = store.admit(&mail(first.reveal())).await.unwrap();
    assert_eq!(admitted.admission, Admission::Granted);
    queue.enqueue(&first, &data).await.unwrap();

    bench.clock.advance(IN_FLIGHT);
    let accepted = Admission::Repeated(Repetition::Accepted {
        id: first.reveal().to_owned(),
    });
    for _ in 0..2 {
        let id = queues::id();
        let taken = intake.take(&mail(id.reveal()), &id, &data).await;
        assert_eq!(taken.unwrap().admission, accepted);
    }
    assert_eq!(queue.counts().await.unwrap().waiting, 1);
}
