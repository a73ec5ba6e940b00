//! The tool against targets that behave and targets that do not.

mod fake;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use fake::{Behaviour, Fake};
use otpost_load::comparison::Pair;
use otpost_load::pace::Pace;
use otpost_load::process::{Probe, cpu_of};
use otpost_load::report::{self, Faults, percentile};
use otpost_load::scenario::{Load, Measured, Plan, Post, Scenario};
use otpost_load::sink::Sink;
use otpost_load::target::{Backend, Programs, Setup, Target};
use otpost_load::timing::Timing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const FIFTY: Plan = Plan {
    scenario: Scenario::Generate,
    pace: Pace::Closed,
    connections: 4,
    length: Duration::from_secs(60),
    most: 50,
    deadline: Duration::from_secs(10),
    grace: Duration::from_secs(2),
};

async fn measure(
    behaviour: Behaviour,
    smtp_delay: Duration,
    plan: Plan,
) -> anyhow::Result<Measured> {
    let sink = Sink::start(0, smtp_delay).await?;
    let fake = Fake::start(ANY_PORT, sink.address(), behaviour).await?;
    let probe = Probe {
        target: vec![std::process::id()],
        redis: Vec::new(),
    };
    Load {
        target: fake.address,
        ledger: sink.ledger().clone(),
        probe,
    }
    .run(plan)
    .await
}

async fn faults(behaviour: Behaviour, scenario: Scenario) -> Faults {
    let plan = Plan { scenario, ..FIFTY };
    let measured = measure(behaviour, Duration::ZERO, plan)
        .await
        .expect("a measurement");
    assert_eq!(measured.samples.len(), 50);
    report::faults(&measured)
}

fn fault(what: &str, times: u32) -> Faults {
    Faults::from([(what.to_owned(), times)])
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}

#[tokio::test]
async fn a_target_that_behaves_has_no_faults_in_any_scenario() {
    for scenario in [Scenario::Generate, Scenario::Flow, Scenario::VerifyWrong] {
        assert_eq!(
            faults(Behaviour::default(), scenario).await,
            Faults::new(),
            "{scenario:?}"
        );
    }
}

#[tokio::test]
async fn every_lost_mail_is_counted() {
    let behaviour = Behaviour {
        lose_every: 10,
        ..Behaviour::default()
    };
    assert_eq!(
        faults(behaviour, Scenario::Generate).await,
        fault("mail lost", 5)
    );
    assert_eq!(
        faults(behaviour, Scenario::Flow).await,
        fault("mail lost", 5)
    );
}

#[tokio::test]
async fn every_second_mail_to_an_address_is_counted() {
    let behaviour = Behaviour {
        double_every: 5,
        ..Behaviour::default()
    };
    assert_eq!(
        faults(behaviour, Scenario::Generate).await,
        fault("mail twice", 10)
    );
}

#[tokio::test]
async fn every_answer_that_is_not_the_expected_one_is_counted() {
    let refusing = Behaviour {
        refuse_every: 25,
        ..Behaviour::default()
    };
    assert_eq!(
        faults(refusing, Scenario::Generate).await,
        fault("unexpected answer 503", 2)
    );
    let denying = Behaviour {
        denies: true,
        ..Behaviour::default()
    };
    assert_eq!(
        faults(denying, Scenario::Flow).await,
        fault("unexpected answer 422", 50)
    );
}

#[tokio::test]
async fn addresses_without_a_code_to_guess_at_are_counted() {
    let behaviour = Behaviour {
        lose_every: 10,
        ..Behaviour::default()
    };
    let plan = Plan {
        scenario: Scenario::VerifyWrong,
        ..FIFTY
    };
    let measured = measure(behaviour, Duration::ZERO, plan).await.unwrap();
    assert_eq!(measured.samples.len(), 45);
    assert_eq!(
        report::faults(&measured),
        fault("address without a code to guess at", 5)
    );
}

/// One stall of half a second at 100 requests per second delays the fifty that were due meanwhile,
/// although only one of them was under way.
#[tokio::test]
async fn a_stall_counts_for_every_request_that_was_due_meanwhile() {
    let behaviour = Behaviour {
        stall: Duration::from_millis(500),
        ..Behaviour::default()
    };
    let (pace, length) = (Pace::Open { rate: 100 }, Duration::from_secs(1));
    let plan = Plan {
        pace,
        length,
        connections: 1,
        most: 1000,
        ..FIFTY
    };
    let measured = measure(behaviour, Duration::ZERO, plan).await.unwrap();
    assert_eq!(measured.samples.len(), 100);
    let answers = sorted(
        measured
            .samples
            .iter()
            .map(|s| s.answered - s.scheduled)
            .collect(),
    );
    assert!(
        percentile(&answers, 90) >= Duration::from_millis(300),
        "{answers:?}"
    );
    let late = sorted(
        measured
            .samples
            .iter()
            .map(|s| s.sent - s.scheduled)
            .collect(),
    );
    assert!(
        percentile(&late, 90) >= Duration::from_millis(300),
        "{late:?}"
    );
    assert_eq!(report::faults(&measured), Faults::new());
}

#[tokio::test]
async fn requests_that_a_stuck_target_kept_from_being_sent_are_counted() {
    let behaviour = Behaviour {
        stall: Duration::from_secs(5),
        ..Behaviour::default()
    };
    let (pace, length) = (Pace::Open { rate: 20 }, Duration::from_secs(1));
    let (deadline, grace) = (Duration::from_secs(2), Duration::from_millis(500));
    let plan = Plan {
        pace,
        length,
        deadline,
        grace,
        connections: 1,
        most: 1000,
        ..FIFTY
    };
    let measured = measure(behaviour, Duration::ZERO, plan).await.unwrap();
    let mut wanted = fault("no answer in time", 1);
    wanted.extend(fault("request never sent", 19));
    assert_eq!(report::faults(&measured), wanted);
}

#[tokio::test]
async fn the_mail_latency_ends_with_the_reply_to_the_final_dot() {
    let delay = Duration::from_millis(20);
    let plan = Plan { most: 4, ..FIFTY };
    let measured = measure(Behaviour::default(), delay, plan).await.unwrap();
    for sample in &measured.samples {
        let Post::Came(mail) = &sample.post else {
            panic!("{sample:?}")
        };
        // The banner and the replies to EHLO, MAIL, RCPT, DATA and the dot.
        assert!(mail.accepted - sample.sent >= 6 * delay, "{sample:?}");
    }
}

#[tokio::test]
async fn the_sink_takes_commands_in_one_packet_and_refuses_them_out_of_order() {
    let sink = Sink::start(0, Duration::ZERO).await.unwrap();
    let (first, second) = (
        sink.ledger().expect("a@example.com"),
        sink.ledger().expect("b@example.com"),
    );
    let mut stream = TcpStream::connect(sink.address()).await.unwrap();
    let talk = "ehlo x\r\nRCPT TO:<a@example.com>\r\nDATA\r\nNOOP\r\nVRFY x\r\nMAIL FROM:<>\r\nRSET\r\n\
        RCPT TO:<a@example.com>\r\nMAIL FROM:<x@example.com> BODY=8BITMIME\r\nRCPT TO:nobody\r\n\
        RCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n\r\n..\r\n..765432\r\n.\r\nQUIT\r\n";
    stream.write_all(talk.as_bytes()).await.unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).await.unwrap();
    let codes: Vec<&str> = replies.lines().map(|line| &line[..4]).collect();
    assert_eq!(
        codes.join(""),
        "220 250-250-250 503 503 250 502 250 250 503 250 501 250 250 354 250 221 "
    );
    assert_eq!(first.await.unwrap().code.as_deref(), Some("765432"));
    assert_eq!(second.await.unwrap().code.as_deref(), Some("765432"));
    assert_eq!(sink.ledger().counts().mails, 2);
}

/// The stand-in for otpost, which cargo builds together with the tests.
fn programs() -> Programs {
    let test_binary = std::env::current_exe().expect("the path of this test");
    let profile = test_binary
        .ancestors()
        .nth(2)
        .expect("the folder of the profile");
    let (otpost, redis_server) = (
        profile.join("examples/fake_otpost"),
        PathBuf::from("redis-server"),
    );
    Programs {
        otpost,
        redis_server,
    }
}

#[tokio::test]
async fn a_stopped_target_leaves_no_process() {
    let sink = Sink::start(0, Duration::ZERO).await.unwrap();
    let target = Target::start(
        &programs(),
        Backend::Redis,
        sink.address(),
        Setup::default(),
    )
    .await
    .unwrap();
    let probe = target.probe();
    assert!(probe.target_memory().unwrap().resident_kib > 0);
    assert!(probe.redis_memory().unwrap().resident_kib > 0);
    target.stop().await.unwrap();
    assert!(cpu_of(&probe.target).is_err());
    assert!(cpu_of(&probe.redis).is_err());
}

#[tokio::test]
async fn a_target_that_ends_instead_of_getting_ready_is_an_error() {
    let started = Instant::now();
    let programs = Programs {
        otpost: "/bin/false".into(),
        redis_server: "redis-server".into(),
    };
    let error = Target::start(&programs, Backend::Sqlite, ANY_PORT, Setup::default())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("otpost ended with exit status: 1"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(25));
}

#[test]
fn the_table_shows_both_backends_side_by_side() {
    let output = Command::new(env!("CARGO_BIN_EXE_otpost-load"))
        .args([
            "table",
            "--repeat",
            "1",
            "--seconds",
            "1",
            "--rate",
            "20",
            "--max-requests",
            "40",
        ])
        .args(["--connections", "4", "--binary"])
        .arg(programs().otpost)
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{table}{errors}");
    assert!(
        table
            .starts_with("| | embedded (SQLite) | Redis |\n|---|---|---|\n| **at rest** |  |  |\n"),
        "{table}"
    );
    assert_eq!(
        table.matches("| faults | none | none |").count(),
        6,
        "{table}"
    );
    assert!(
        table
            .lines()
            .filter(|line| !line.is_empty())
            .all(|line| line.matches('|').count() == 4)
    );
}

#[tokio::test]
async fn a_run_that_lost_mail_says_so_and_fails() {
    let elsewhere = Sink::start(0, Duration::ZERO).await.unwrap();
    let fake = Fake::start(ANY_PORT, elsewhere.address(), Behaviour::default())
        .await
        .unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_otpost-load"))
        .args([
            "run",
            "--smtp-port",
            "0",
            "--scenario",
            "generate",
            "--max-requests",
            "3",
        ])
        .args([
            "--grace",
            "1",
            "--target",
            &format!("http://{}", fake.address),
        ])
        .output()
        .await
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("| faults | **3 × mail lost** |"), "{table}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn load_beyond_this_machine_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_otpost-load"))
        .args(["run", "--target", "http://192.0.2.1:80", "--smtp-port", "0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"));
}

#[tokio::test]
async fn a_target_whose_time_or_words_tell_of_a_live_code_is_found_out() {
    let sink = Sink::start(0, Duration::ZERO).await.unwrap();
    let behaviour = Behaviour {
        tells: Duration::from_millis(5),
        ..Behaviour::default()
    };
    let fake = Fake::start(ANY_PORT, sink.address(), behaviour)
        .await
        .unwrap();
    let mut timing = Timing::new(fake.address, sink.ledger().clone(), false);
    let comparison = timing.verifies(200).await.unwrap();
    for class in &comparison.classes {
        assert_eq!(class.latencies.len(), 200, "{}", class.name);
    }
    let differs = |left, right| {
        let pairs = comparison.pairs().unwrap();
        let pair = pairs
            .iter()
            .find(|pair| (pair.left, pair.right) == (left, right));
        pair.is_some_and(Pair::differs)
    };
    assert!(differs("no code", "wrong code"));
    assert!(differs("no code", "last digit wrong"));
    // It counts no attempts, so that the right code is taken after five wrong ones.
    let different = &comparison.different_answers;
    assert!(
        different
            .iter()
            .all(|answer| answer.starts_with("spent: `200"))
    );
    assert!(!different.is_empty() && !comparison.is_clean().unwrap());
    assert!(comparison.markdown().unwrap().contains("| differs |"));
}
