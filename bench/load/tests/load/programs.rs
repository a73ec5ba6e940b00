//! Programs that are started: those to be measured, and the tool itself.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use otpost_load::process::cpu_of;
use otpost_load::sink::Sink;
use otpost_load::target::{Backend, Programs, Setup, Target};

use crate::ANY_PORT;
use crate::fake::{Behaviour, Fake};

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
