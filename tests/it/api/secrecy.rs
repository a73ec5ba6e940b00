//! A code or an address in the wrong place must come out nowhere: not in an answer, not in the log.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::fmt::MakeWriter;

use super::{Bench, incorrect};
use crate::support::fakes::{FakeQueue, FakeStore, Mood};

const CODE: &str = "73915528";
const LOCAL: &str = "canary.lovelace";

/// Sees to it that a scoped subscriber gets every line. While a process has only one subscriber,
/// `tracing` asks the thread that first passes a line of code whether anybody wants it, and may take
/// the "no" of another test's thread for an answer for good. With a second one it asks all of them.
fn keep_lines_awake() {
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(io::sink)
            .finish();
        Dispatch::new(subscriber)
    });
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Every place in a body in which a client may put a code or an address by mistake.
fn bodies() -> Vec<String> {
    let email = format!("{LOCAL}@example.org");
    vec![
        format!(r#"{{"email":"{email}","otp":"{CODE}"}}"#),
        format!(r#"{{"email":"{email}","otp":{CODE}}}"#),
        format!(r#"{{"email":"{email}","otp":[{CODE}]}}"#),
        format!(r#"{{"email":"{email}","otp":"{CODE}9"}}"#),
        format!(r#"{{"email":"{email}","otp":"x{CODE}"}}"#),
        format!(r#"{{"email":"{CODE}","otp":"{email}"}}"#),
        format!(r#"{{"email":{CODE},"otp":"{email}"}}"#),
        format!(r#"{{"{email}":"{CODE}"}}"#),
        format!(r#"{{"{CODE}":"{email}"}}"#),
        format!(r#"{{"{email}":1,"{email}":{CODE}}}"#),
        format!(r#"{{"email":"{email}","otp":"{CODE}","context":"\u0000{CODE}"}}"#),
        format!(r#"{{"email":"{email}","locale":"{CODE}"}}"#),
        format!(r#"{{"email":"{email}","locale":"{email}","context":{CODE}}}"#),
        format!(r#"["{email}","{CODE}"]"#),
        format!(r#""{email}""#),
        CODE.to_owned(),
        format!("{email} {CODE}"),
        format!(r#"{{"email":"{email}" "{CODE}"}}"#),
        format!(r#"{{"email":"{email}","otp":"{CODE}"}} {CODE}"#),
        format!(r#"{{"email":"..{email}","otp":"{CODE}"}}"#),
    ]
}

#[tokio::test]
async fn neither_code_nor_address_comes_out_of_a_request_anywhere() {
    keep_lines_awake();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let mut seen = 0;
    let run = async {
        for mood in [Mood::Works, Mood::Down] {
            let mut store = FakeStore::new(incorrect());
            store.mood = mood;
            let bench = Bench::with(store, FakeQueue::new());
            for body in bodies() {
                for path in ["/otp/generate", "/otp/verify"] {
                    let answer = bench.post(path, body.clone()).await;
                    let headers = format!("{:?}", answer.headers);
                    for secret in [CODE, LOCAL] {
                        assert!(!answer.text().contains(secret), "{body}: {}", answer.text());
                        assert!(!headers.contains(secret), "{body}: {headers}");
                    }
                    seen += 1;
                }
            }
            for path in [
                format!("/otp/verify?otp={CODE}&email={LOCAL}"),
                format!("/{LOCAL}@example.org/{CODE}"),
                format!("/otp/requests/{CODE}"),
            ] {
                let answer = bench.get(&path).await;
                assert!(!answer.text().contains(CODE) && !answer.text().contains(LOCAL));
            }
            let metrics = bench.telemetry.encode();
            assert!(
                !metrics.contains(CODE) && !metrics.contains(LOCAL),
                "{metrics}"
            );
        }
    };
    run.with_subscriber(subscriber).await;
    assert_eq!(seen, 80);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("request answered"),
        "the log was caught: {log}"
    );
    assert!(log.contains("the fake is down"), "causes are logged: {log}");
    assert!(!log.contains(CODE) && !log.contains(LOCAL), "{log}");
}

#[tokio::test]
async fn a_cause_is_logged_once_under_the_id_that_the_client_sees() {
    keep_lines_awake();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let mut queue = FakeQueue::new();
    queue.mood = Mood::Down;
    let bench = Bench::with(FakeStore::new(incorrect()), queue);
    let answer = bench
        .post("/otp/generate", r#"{"email":"ada@example.org"}"#)
        .with_subscriber(subscriber)
        .await;
    let document = answer.problem(503, "service_unavailable");
    let instance = document["instance"].as_str().unwrap();
    let id = instance.rsplit(':').next().unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("request failed"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(id), "{log}");
}
