//! The canary run: the whole flow by the real program, with codes, addresses and keys that are then
//! looked for in everything that it wrote, answered and keeps.

mod search;

use std::sync::Mutex;

use data_encoding::BASE64;
use otpost::otp::api_key::{self, ApiKeyHash};
use otpost::otp::code::OsEntropy;
use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::Value;

use self::search::{Haystack, Needle, files_in, redis_values};
use super::{ADDRESS, MASTER};
use crate::support::process::{PATIENCE, Process, Setup};
use crate::support::redis_server::RedisServer;
use crate::support::smtp_server::{Act, Options, SmtpServer};

const CONTEXT: &str = "canary-context-4711";
const PASSWORD: &str = "canary-smtp-sesame";

/// Her mails all go out.
const ADA: &str = "Canary.Ada+tag@one.canary-domain.example";
/// His first mail is refused for the time being.
const BOB: &str = "canary.bob@two.canary-domain.example";
/// The mail server knows nobody of that name.
const EVE: &str = "canary.eve@three.canary-domain.example";
/// The mail server takes no mail when his code is asked for.
const DAN: &str = "canary.dan@four.canary-domain.example";

/// A run under way.
struct Run {
    process: Process,
    smtp: SmtpServer,
    api_key: String,
    answers: Mutex<Vec<u8>>,
    codes: Vec<String>,
}

impl Run {
    async fn ask(&self, method: Method, path: &str, body: String) -> (StatusCode, String) {
        let request = self
            .process
            .request(method, path)
            .bearer_auth(&self.api_key)
            .header("Content-Type", "application/json")
            .body(body);
        self.note(request).await
    }

    async fn note(&self, request: reqwest::RequestBuilder) -> (StatusCode, String) {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), format!("{:?}", answer.headers()));
        let text = answer.text().await.unwrap();
        let mut answers = self.answers.lock().unwrap();
        answers.extend_from_slice(headers.as_bytes());
        answers.extend_from_slice(text.as_bytes());
        (status, text)
    }

    /// Asks for a code and returns the id of the request.
    async fn generate(&self, email: &str) -> String {
        let body = format!(r#"{{"email":"{email}","context":"{CONTEXT}"}}"#);
        let (status, text) = self.ask(Method::POST, "/otp/generate", body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    async fn verify(&self, email: &str, otp: &str) -> StatusCode {
        let body = format!(r#"{{"email":"{email}","otp":"{otp}","context":"{CONTEXT}"}}"#);
        self.ask(Method::POST, "/otp/verify", body).await.0
    }

    /// Waits for a mail and keeps its code.
    async fn mailed(&mut self) -> String {
        let code = self.smtp.next_mail().await.code();
        self.codes.push(code.clone());
        code
    }

    async fn until(&self, id: &str, state: &str) {
        let reached = async {
            loop {
                let path = format!("/otp/requests/{id}");
                let (_, text) = self.ask(Method::GET, &path, String::new()).await;
                if text.contains(&format!(r#""state":"{state}""#)) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.expect("the request comes to its state");
    }

    /// A resend, wrong codes, and everything that people do to bodies; then the right code.
    async fn through_the_usual(&mut self) {
        let id = self.generate(ADA).await;
        let code = self.mailed().await;
        self.generate(ADA).await;
        assert_eq!(self.mailed().await, code);
        self.until(&id, "sent").await;
        assert_eq!(self.verify(ADA, "00000001").await, 422);
        for body in [
            format!(r#"{{"email":"{ADA}","otp":{code}}}"#),
            format!(r#"{{"email":"{ADA}","otp":"{code}9"}}"#),
            format!(r#"{{"email":"{code}","otp":"{ADA}"}}"#),
            format!(r#"{{"email":"{ADA}","code":"{code}"}}"#),
            format!(r#"{{"{code}":"{ADA}"}}"#),
            format!(r#"{{"{ADA}":{code}}}"#),
            format!(r#"{{"email":"{ADA}","otp":"{code}"}} {code} {ADA}"#),
            format!(r#"{{"email":"{ADA}","locale":"{code}","context":{code}}}"#),
            format!("{ADA} {code}"),
        ] {
            for path in ["/otp/generate", "/otp/verify"] {
                let (status, text) = self.ask(Method::POST, path, body.clone()).await;
                assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body} {text}");
            }
        }
        let strange = format!("/otp/{ADA}/{code}?otp={code}");
        self.ask(Method::GET, &strange, String::new()).await;
        self.ask(Method::GET, &format!("/otp/requests/{code}"), String::new())
            .await;
        let right = format!(r#"{{"email":"{ADA}","otp":"{code}","context":"{CONTEXT}"}}"#);
        let request = self
            .process
            .request(Method::POST, "/otp/verify")
            .bearer_auth(&self.api_key)
            .header(
                "Idempotency-Key",
                "\"3f6c9c1e-5a0b-4a51-9f59-0d1b6b6c8d11\"",
            )
            .header("Content-Type", "application/json")
            .body(right);
        assert_eq!(self.note(request).await.0, StatusCode::OK);
        assert_eq!(self.verify(ADA, &code).await, 422);
    }

    /// A refusal for now, one for good, and no mail server at all; servers quote in their replies.
    async fn through_refusals(&mut self) {
        let busy = "451 4.2.1 <canary.bob@two.canary-domain.example> busy";
        self.smtp.once("RCPT", Act::Reply(busy));
        let id = self.generate(BOB).await;
        self.mailed().await;
        self.until(&id, "sent").await;
        let unknown = "550 5.1.1 <canary.eve@three.canary-domain.example> unknown";
        self.smtp.once("RCPT", Act::Reply(unknown));
        let id = self.generate(EVE).await;
        self.until(&id, "failed").await;
    }

    async fn through_an_outage(&self, redis: &mut RedisServer) {
        redis.kill();
        let body = format!(r#"{{"email":"{ADA}","otp":"{}"}}"#, self.codes[0]);
        let (status, _) = self.ask(Method::POST, "/otp/verify", body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let body = format!(r#"{{"email":"{ADA}"}}"#);
        let (status, _) = self.ask(Method::POST, "/otp/generate", body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        redis.restart().await;
        let back = async {
            while self.process.ask_ops("/readyz").await.status() != StatusCode::OK {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, back)
            .await
            .expect("it is ready again");
    }

    /// What is known only to the mail, the caller and the settings.
    fn secrets(&self) -> Vec<Needle> {
        let mut needles: Vec<Needle> = self
            .codes
            .iter()
            .flat_map(|code| Needle::code(code))
            .collect();
        for (what, text) in [
            ("the API key", self.api_key.as_str()),
            ("the password of the mail server", PASSWORD),
            ("the context", CONTEXT),
        ] {
            needles.extend(Needle::text(what, text));
        }
        for (what, key) in [("keys.master", MASTER), ("keys.address", ADDRESS)] {
            needles.extend(Needle::bytes(what, &BASE64.decode(key.as_bytes()).unwrap()));
        }
        needles
    }
}

/// An address in all forms in which it may stand somewhere, and its parts.
fn address(address: &str) -> Vec<Needle> {
    let (local, domain) = address.split_once('@').unwrap();
    let lower = local.to_lowercase();
    let plain = lower.split('+').next().unwrap();
    [address, local, &lower, plain, domain]
        .iter()
        .flat_map(|part| Needle::text(address, part))
        .collect()
}

async fn start(setup: Setup, level: Option<&str>) -> (Setup, Run) {
    let smtp = SmtpServer::start_with(Options {
        login: Some(("user", PASSWORD)),
        ..Options::default()
    })
    .await;
    let url = smtp
        .url()
        .replace("smtp://", &format!("smtp://user:{PASSWORD}@"));
    let api_key = api_key::draw(&OsEntropy).unwrap();
    let mut setup = setup
        .with("mail.from", "otpost <no-reply@example.com>")
        .with(
            "http.api_keys",
            &ApiKeyHash::of(api_key.as_bytes()).to_string(),
        )
        // Eight digits hardly come by chance in what is searched.
        .with("otp.digits", "8")
        .with("limits.address.cooldown", "0s")
        .with_secret_file("mail.smtp.url", &url)
        .with_secret_file("keys.master", MASTER)
        .with_secret_file("keys.address", ADDRESS);
    if let Some(level) = level {
        setup = setup.with("log.level", level);
    }
    let process = setup.start().await;
    let run = Run {
        process,
        smtp,
        api_key: api_key.to_string(),
        answers: Mutex::default(),
        codes: Vec::new(),
    };
    (setup, run)
}

/// What the process says to the world: nothing of a secret, and no address, is in it.
async fn searched_outside(run: Run) -> Vec<Needle> {
    for path in ["/metrics", "/readyz", "/livez"] {
        let answer = run.process.ask_ops(path).await.text().await.unwrap();
        run.answers
            .lock()
            .unwrap()
            .extend_from_slice(answer.as_bytes());
    }
    run.ask(Method::GET, "/openapi.json", String::new()).await;
    let secrets = run.secrets();
    let answers = run.answers.lock().unwrap().clone();
    let surroundings = run.process.surroundings();
    let (status, said) = run.process.stop().await;
    assert!(status.success(), "{said}");
    assert!(said.contains("job will be tried again") && said.contains("job failed"));
    for (place, content) in [
        ("an answer", answers),
        ("the environment or command line", surroundings),
        ("the log", said.into_bytes()),
    ] {
        let everybody = [ADA, BOB, EVE, DAN].into_iter().flat_map(address);
        Haystack::new(place, &content).holds_none_of(secrets.iter().cloned().chain(everybody));
    }
    secrets
}

#[rstest]
#[case::usual_log(None)]
#[case::long_log(Some("debug"))]
#[tokio::test(flavor = "multi_thread")]
async fn no_code_address_or_key_gets_out_on_the_embedded_store(#[case] level: Option<&str>) {
    let (setup, mut run) = start(Setup::bare(), level).await;
    run.through_the_usual().await;
    run.through_refusals().await;
    run.smtp.always("MAIL", Act::Reply("451 4.3.0 later"));
    let id = run.generate(DAN).await;
    run.until(&id, "retrying").await;
    // The log of writes holds what its file does not hold yet.
    let while_running = files_in(setup.folder(), "otpost.db");
    assert!(
        while_running
            .iter()
            .any(|file| file.place.ends_with("-wal"))
    );
    let integers = search::sqlite_integers(&setup.folder().join("otpost.db"));
    let secrets = searched_outside(run).await;
    let stopped = files_in(setup.folder(), "otpost.db");
    for file in while_running.iter().chain(&stopped).chain([&integers]) {
        file.holds_none_of(secrets.iter().cloned());
    }
    for file in &stopped {
        file.holds_none_of([ADA, BOB].into_iter().flat_map(address));
    }
    let kept = |needle: Needle| stopped.iter().any(|file| file.holds(&needle));
    assert!(
        [EVE, DAN].iter().all(|who| kept(Needle::plain(who))),
        "jobs name whom they are for"
    );
}

#[rstest]
#[case::usual_log(None)]
#[case::long_log(Some("debug"))]
#[tokio::test(flavor = "multi_thread")]
async fn no_code_address_or_key_gets_out_on_redis(#[case] level: Option<&str>) {
    let options = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--rdbcompression",
        "no",
    ];
    let mut redis = RedisServer::start_with(&options).await;
    let setup = Setup::bare().with("store.url", &redis.url());
    let (_setup, mut run) = start(setup, level).await;
    run.through_the_usual().await;
    run.through_refusals().await;
    run.through_an_outage(&mut redis).await;
    run.smtp.always("MAIL", Act::Reply("451 4.3.0 later"));
    let id = run.generate(DAN).await;
    run.until(&id, "retrying").await;
    let values = redis_values(&redis).await;
    let secrets = searched_outside(run).await;
    // What was done is in the file of commands until the server rewrites it: addresses, no secret.
    for file in files_in(redis.folder(), "") {
        file.holds_none_of(secrets.iter().cloned());
    }
    search::rewrite(&redis).await;
    let files = files_in(redis.folder(), "");
    assert!(files.len() >= 3, "a dump, a base and a manifest");
    for place in values.iter().chain(&files) {
        let gone = [ADA, BOB].into_iter().flat_map(address);
        place.holds_none_of(secrets.iter().cloned().chain(gone));
    }
    let kept = |needle: Needle| values.iter().any(|value| value.holds(&needle));
    assert!(
        [EVE, DAN].iter().all(|who| kept(Needle::plain(who))),
        "jobs name whom they are for"
    );
}
