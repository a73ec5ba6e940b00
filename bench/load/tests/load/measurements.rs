//! What was measured, and what is found wrong with it.

use std::time::Duration;

use otpost_load::comparison::Pair;
use otpost_load::pace::Pace;
use otpost_load::process::Probe;
use otpost_load::report::{self, Faults, percentile};
use otpost_load::scenario::{Load, Measured, Plan, Post, Scenario};
use otpost_load::sink::Sink;
use otpost_load::timing::Timing;

use crate::ANY_PORT;
use crate::fake::{Behaviour, Fake};

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
