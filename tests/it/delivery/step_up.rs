//! Mails to mailboxes whose failures are spent, and mails while the breaker is open.

use std::time::Duration;

use otpost::otp::breaker::History;
use otpost::otp::policy::{AddressLimits, Policy, STEPPED_FAILURES_PER_DAY, StepUp};
use otpost::queue::Outcome;
use otpost::store::{EndState, Verdict};
use rstest::rstest;

use super::{POLICY, Stage};

const LIMITED: Policy = Policy {
    limits: Some(AddressLimits {
        cooldown: Duration::ZERO,
        per_hour: 5,
        per_day: 15,
        failures_per_hour: 1,
        failures_per_day: 15,
        failures_per_month: 35,
    }),
    ..POLICY
};

const ATTACK: History = History {
    last_day: 501,
    usual_day: 0,
};

/// The digits that stand alone in the newest mail.
fn code(stage: &Stage) -> String {
    let messages = stage.transport.messages.lock().unwrap();
    let text = &messages.last().unwrap().text;
    text.split(|character: char| !character.is_ascii_digit())
        .find(|word| word.len() >= 6)
        .unwrap()
        .to_owned()
}

/// Spends the failures of the address.
async fn spend(stage: &Stage) {
    stage.processor.process(stage.job("r1")).await;
    let wrong = if code(stage) == "000000" {
        "000001"
    } else {
        "000000"
    };
    assert!(matches!(stage.verify(wrong).await, Verdict::Incorrect(_)));
}

#[tokio::test]
async fn an_address_whose_failures_are_spent_is_mailed_8_digits_that_verify() {
    let stage = Stage::with(LIMITED);
    spend(&stage).await;
    let outcome = stage.processor.process(stage.job("r2")).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(code(&stage).len(), 8);
    assert_eq!(stage.verify(&code(&stage)).await, Verdict::Correct);
    assert_eq!(stage.end_of("r2").await, Some(EndState::Sent));
}

#[tokio::test]
async fn an_address_whose_failures_are_spent_is_mailed_nothing_where_step_up_blocks() {
    let stage = Stage::with(Policy {
        step_up: StepUp::Block,
        ..LIMITED
    });
    spend(&stage).await;
    let outcome = stage.processor.process(stage.job("r2")).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(stage.end_of("r2").await, Some(EndState::Blocked));
    assert_eq!(stage.transport.messages.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_address_whose_longer_codes_are_spent_too_is_mailed_nothing() {
    let stage = Stage::with(LIMITED);
    spend(&stage).await;
    for failure in 0..STEPPED_FAILURES_PER_DAY {
        stage
            .processor
            .process(stage.job(&format!("s{failure}")))
            .await;
        let wrong = if code(&stage) == "00000000" {
            "00000001"
        } else {
            "00000000"
        };
        assert!(matches!(stage.verify(wrong).await, Verdict::Incorrect(_)));
    }
    let mailed = stage.transport.messages.lock().unwrap().len();
    let outcome = stage.processor.process(stage.job("r2")).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(stage.end_of("r2").await, Some(EndState::Blocked));
    assert_eq!(stage.transport.messages.lock().unwrap().len(), mailed);
}

#[rstest]
#[case::stepped_up(StepUp::Digits8, 8)]
#[case::only_warned_of(StepUp::Block, 6)]
#[tokio::test]
async fn while_the_breaker_is_open_an_untouched_address_is_mailed_a_longer_code(
    #[case] step_up: StepUp,
    #[case] digits: usize,
) {
    let stage = Stage::with(Policy { step_up, ..LIMITED });
    stage.processor.breaker.heed(&ATTACK);
    stage.processor.process(stage.job("r1")).await;
    assert_eq!(code(&stage).len(), digits);
    assert_eq!(stage.verify(&code(&stage)).await, Verdict::Correct);
}

#[tokio::test]
async fn a_code_that_was_mailed_before_the_breaker_opened_stays_good() {
    let stage = Stage::with(LIMITED);
    stage.processor.process(stage.job("r1")).await;
    let mailed = code(&stage);
    stage.processor.breaker.heed(&ATTACK);
    stage.processor.process(stage.job("r2")).await;
    assert_eq!(code(&stage), mailed);
    stage.clock.advance(Duration::from_secs(400));
    stage.processor.process(stage.job("r3")).await;
    assert_eq!(code(&stage).len(), 8);
    assert_eq!(stage.verify(&mailed).await, Verdict::Correct);
}

#[tokio::test]
async fn when_the_breaker_closes_codes_are_as_long_as_before() {
    let stage = Stage::with(LIMITED);
    stage.processor.breaker.heed(&ATTACK);
    stage.processor.process(stage.job("r1")).await;
    stage.processor.breaker.heed(&History::default());
    stage.clock.advance(Duration::from_secs(601));
    stage.processor.process(stage.job("r2")).await;
    assert_eq!(code(&stage).len(), 6);
}
