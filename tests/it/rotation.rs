//! The master key is changed in two steps, process by process, while people ask for codes and type
//! them.

use rstest::rstest;

use crate::support::process::{Process, Setup};
use crate::support::redis_server::RedisServer;
use crate::support::smtp_server::SmtpServer;

const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "8Ll0Xk0aVh3mOQxqzJ8mS1pQm9wW8nYJcK0gq7dT4uE=";
const OTHER: &str = "pX0c6u0b5N2dVvJtq1oW0eRz3yYh7mKfQ9sLgT4iUaE=";

/// The keys of the steps, in their order: master, previous.
const STEPS: [(&str, &str); 4] = [(OLD, ""), (OLD, NEW), (NEW, OLD), (NEW, "")];

fn keyed(setup: Setup, (master, previous): (&str, &str)) -> Setup {
    setup
        .with("keys.master", master)
        .with("keys.previous", previous)
        .with(
            "keys.address",
            "ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoM=",
        )
        .with("limits.client.enabled", "false")
}

async fn asked(process: &Process, smtp: &SmtpServer, email: &str) -> String {
    process.generate(email).await;
    let mail = smtp.next_mail().await;
    assert_eq!(mail.to, [email]);
    mail.code()
}

async fn is_right(process: &Process, email: &str, code: &str) -> bool {
    process.verify(email, code).await.0 == 200
}

/// A wrong code for ever.
async fn wrong(process: &Process, email: &str, right: &str) {
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    assert_eq!(process.verify(email, wrong).await.0, 422);
}

/// People who come all the while.
async fn flows(process: &Process, smtp: &SmtpServer, name: &str) {
    for number in 0..10 {
        let email = format!("{name}.{number}@example.org");
        let code = asked(process, smtp, &email).await;
        assert!(is_right(process, &email, &code).await, "{email}");
    }
}

/// Two processes on one Redis; one of them changes at a time, and both serve in between.
#[tokio::test(flavor = "multi_thread")]
async fn processes_change_their_key_one_by_one_and_no_code_or_count_is_lost() {
    let (smtp, redis) = (SmtpServer::start().await, RedisServer::start().await);
    let setup = || Setup::mailing_to(&smtp.url()).with("store.url", &redis.url());
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(keyed(setup(), STEPS[0]).start().await);
    }
    // Four wrong attempts before the change; the fifth comes after it.
    let eve = asked(&processes[0], &smtp, "eve@example.org").await;
    for _ in 0..4 {
        wrong(&processes[0], "eve@example.org", &eve).await;
    }
    let mut codes = Vec::new();
    for (step, keys) in STEPS.into_iter().enumerate().skip(1).take(2) {
        for place in 0..2 {
            for (who, process) in processes.iter().enumerate() {
                let email = format!("ada.{step}.{place}.{who}@example.org");
                codes.push((asked(process, &smtp, &email).await, email));
            }
            let mut next = keyed(setup(), keys);
            let name = format!("load.{step}.{place}");
            let (changed, ()) =
                tokio::join!(next.start(), flows(&processes[1 - place], &smtp, &name),);
            std::mem::replace(&mut processes[place], changed)
                .kill()
                .await;
            // A code of either process counts at either process, and a mail repeats it.
            for (turn, (code, email)) in codes.drain(..).enumerate() {
                let process = &processes[turn % 2];
                assert!(
                    is_right(process, &email, &code).await,
                    "step {step}.{place} {email}"
                );
            }
            let email = format!("bob.{step}.{place}@example.org");
            let code = asked(&processes[1], &smtp, &email).await;
            assert!(
                is_right(&processes[0], &email, &code).await,
                "step {step}.{place}"
            );
        }
    }
    wrong(&processes[1], "eve@example.org", &eve).await;
    assert!(
        !is_right(&processes[0], "eve@example.org", &eve).await,
        "the attempts are spent"
    );
}

/// One process that is restarted at each step, on either backend.
#[rstest]
#[case::embedded(false)]
#[case::redis(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_code_outlives_each_step_of_the_change_but_not_its_key(#[case] on_redis: bool) {
    let (smtp, redis) = (SmtpServer::start().await, RedisServer::start().await);
    let mut setup = Setup::mailing_to(&smtp.url());
    if on_redis {
        setup = setup.with("store.url", &redis.url());
    }
    setup = keyed(setup, STEPS[0]);
    let process = setup.start().await;
    let early = asked(&process, &smtp, "early@example.org").await;
    let late = asked(&process, &smtp, "late@example.org").await;
    let never = asked(&process, &smtp, "never@example.org").await;
    for _ in 0..3 {
        wrong(&process, "late@example.org", &late).await;
    }
    process.stop().await;

    setup = keyed(setup, STEPS[1]);
    let process = setup.start().await;
    assert!(is_right(&process, "early@example.org", &early).await);
    process.stop().await;

    setup = keyed(setup, STEPS[2]);
    let process = setup.start().await;
    wrong(&process, "late@example.org", &late).await;
    assert!(
        is_right(&process, "late@example.org", &late).await,
        "four attempts were wrong"
    );
    process.stop().await;

    setup = keyed(setup, STEPS[3]);
    let process = setup.start().await;
    assert!(
        !is_right(&process, "never@example.org", &never).await,
        "its key is not listed"
    );
    process.stop().await;

    for (master, part) in [
        (OTHER, "keys.master"),
        ("AAECAwQFBgcICQoLDA0ODw==", "keys.master"),
    ] {
        let refused = keyed(setup, (master, ""));
        let output = refused.run(&["serve"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{said}");
        setup = refused;
    }
    let refused = keyed(setup, STEPS[3]).with("keys.address", OTHER);
    let output = refused.run(&["serve"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("`keys.address` is not the key"),
        "{said}"
    );
}
