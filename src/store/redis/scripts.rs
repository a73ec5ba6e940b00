//! The scripts as the server gets them: with the numbers of the policy among their constants, so that no call
//! reads them anew. Processes with other policies have other scripts.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use crate::otp::clock::millis;
use crate::otp::idempotency::{IN_FLIGHT, REQUEST_REPLAY};
use crate::otp::policy::{
    AddressLimits, ClientLimits, FAILURES_PER_CLIENT_PER_DAY, LIVE_CODES, Policy, RETRY_MARGIN,
    Resend, STEPPED_DIGITS, STEPPED_FAILURES_PER_DAY, SUPERSEDE_MARGIN, StepUp,
};
use crate::otp::record::REPLAY_TIME;
use crate::redis_link::Script;

/// Where nothing is counted, nobody asks how much may be.
const NO_LIMITS: AddressLimits = AddressLimits {
    cooldown: Duration::ZERO,
    per_hour: 0,
    per_day: 0,
    failures_per_hour: 0,
    failures_per_day: 0,
    failures_per_month: 0,
};
const NO_CLIENT_LIMITS: ClientLimits = ClientLimits {
    generate_per_10m: 0,
    generate_per_hour: 0,
    distinct_addresses_per_hour: 0,
    verify_failures_per_hour: 0,
};

const VALUES: &str = include_str!("../values.lua");
const MAP: &str = include_str!("../map.lua");
const RECORD: &str = include_str!("../record.lua");
const BUDGET: &str = include_str!("../budget.lua");
const CLIENT: &str = include_str!("../client.lua");
const GENERATES: &str = include_str!("../client_generates.lua");
const IDEMPOTENCY: &str = include_str!("../idempotency.lua");

/// All scripts of the store.
pub struct Scripts {
    pub issue: Script,
    pub verify: Script,
    pub admit: Script,
    pub give_back: Script,
    pub enqueued: Script,
    pub client_reserve: Script,
    pub client_give_back: Script,
    pub attest: Script,
    pub unconfirmed: Script,
    pub pace: Script,
    pub give_back_pace: Script,
    pub unresolved: Script,
}

impl Scripts {
    /// Each script behind the rules that it shares with others, and no more: each call runs all of
    /// them.
    pub fn new(policy: &Policy) -> Self {
        macro_rules! script {
            ($($shared:ident)* $file:literal) => {
                assemble(policy, &[$($shared,)* include_str!($file)])
            };
        }
        Self {
            issue: script!(VALUES RECORD BUDGET "../issue.lua"),
            verify: script!(VALUES RECORD BUDGET CLIENT "../verify.lua"),
            admit: script!(VALUES MAP BUDGET CLIENT GENERATES IDEMPOTENCY "../admit.lua"),
            give_back: script!(VALUES MAP BUDGET CLIENT IDEMPOTENCY "../give_back.lua"),
            enqueued: script!(VALUES MAP IDEMPOTENCY "../enqueued.lua"),
            client_reserve: script!(VALUES BUDGET CLIENT GENERATES "../client_reserve.lua"),
            client_give_back: script!(VALUES BUDGET CLIENT GENERATES "../client_give_back.lua"),
            attest: script!(VALUES MAP "../attest.lua"),
            unconfirmed: script!(VALUES MAP "../unconfirmed.lua"),
            pace: script!(VALUES "../pace.lua"),
            give_back_pace: script!("../give_back_pace.lua"),
            unresolved: script!(VALUES MAP "../unresolved.lua"),
        }
    }
}

/// A script of these files behind the policy.
fn assemble(policy: &Policy, files: &[&str]) -> Script {
    Script::new(without_constants(&(constants(policy) + &files.join("\n"))))
}

/// The code with the value of each `local NAME <const> = value` in the places of its name. Lua 5.4 does
/// that; in 5.1, which Redis runs, each call would set all of them up anew, and bind them to each function.
/// `\0*N` in a value stands for so many zeros.
fn without_constants(code: &str) -> String {
    let mut values = HashMap::new();
    let mut whole = String::new();
    for line in code.lines() {
        let constant = line.strip_prefix("local ");
        if let Some((name, value)) = constant.and_then(|rest| rest.split_once(" <const> = ")) {
            values.insert(name, with_zeros(value));
            continue;
        }
        let mut rest = line;
        while let Some(begin) = rest.find(is_of_a_name) {
            let (before, word) = rest.split_at(begin);
            let end = word.find(|char| !is_of_a_name(char)).unwrap_or(word.len());
            let (word, behind) = word.split_at(end);
            whole.push_str(before);
            whole.push_str(values.get(word).map_or(word, String::as_str));
            rest = behind;
        }
        whole.push_str(rest);
        whole.push('\n');
    }
    whole
}

fn is_of_a_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

fn with_zeros(value: &str) -> String {
    let mut parts = value.split(r"\0*");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|char: char| !char.is_ascii_digit());
        let (count, rest) = part.split_at(end.unwrap_or(part.len()));
        whole.push_str(&r"\0".repeat(count.parse().unwrap_or_default()));
        whole.push_str(rest);
    }
    whole
}

/// What the scripts know of the policy.
fn constants(policy: &Policy) -> String {
    let address = policy.limits.unwrap_or(NO_LIMITS);
    let client = policy.limits_of_clients().unwrap_or(NO_CLIENT_LIMITS);
    let switches = [
        ("HAS_LIMITS", policy.limits.is_some()),
        ("RESEND_KEEPS", policy.resend == Resend::Keep),
        ("STEP_UP_BLOCKS", policy.step_up == StepUp::Block),
    ];
    let numbers = [
        ("LIFETIME_MS", millis(policy.lifetime)),
        ("MOST_ATTEMPTS", policy.attempts.into()),
        ("LIVE_CODES", LIVE_CODES as u64),
        ("RETRY_MARGIN_MS", millis(RETRY_MARGIN)),
        ("SUPERSEDE_MARGIN_MS", millis(SUPERSEDE_MARGIN)),
        ("STEPPED_DIGITS", STEPPED_DIGITS.into()),
        ("REPLAY_MS", millis(REPLAY_TIME)),
        ("REQUEST_REPLAY_MS", millis(REQUEST_REPLAY)),
        ("IN_FLIGHT_MS", millis(IN_FLIGHT)),
        ("COOLDOWN_MS", millis(address.cooldown)),
        ("MAILS_PER_HOUR", address.per_hour.into()),
        ("MAILS_PER_DAY", address.per_day.into()),
        ("FAILURES_PER_HOUR", address.failures_per_hour.into()),
        ("FAILURES_PER_DAY", address.failures_per_day.into()),
        ("FAILURES_PER_MONTH", address.failures_per_month.into()),
        ("STEPPED_FAILURES_PER_DAY", STEPPED_FAILURES_PER_DAY.into()),
        (
            "FAILURES_PER_CLIENT_PER_DAY",
            FAILURES_PER_CLIENT_PER_DAY.into(),
        ),
        ("CLIENT_GENERATES_PER_10M", client.generate_per_10m.into()),
        ("CLIENT_GENERATES_PER_HOUR", client.generate_per_hour.into()),
        (
            "CLIENT_ADDRESSES_PER_HOUR",
            client.distinct_addresses_per_hour.into(),
        ),
        ("CLIENT_FAILURES", client.verify_failures_per_hour.into()),
    ];
    let mut lines = String::new();
    for (name, is_on) in switches {
        let _ = writeln!(lines, "local {name} <const> = {is_on}");
    }
    for (name, number) in numbers {
        let number: u64 = number;
        let _ = writeln!(lines, "local {name} <const> = {number}");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::without_constants;

    #[test]
    fn a_constant_stands_in_the_places_of_its_name_and_of_no_longer_one() {
        let code = "local DAY <const> = 24\nlocal days = DAY * 7 + DAY_MS + XDAY\nreturn DAY";
        let whole = "local days = 24 * 7 + DAY_MS + XDAY\nreturn 24\n";
        assert_eq!(without_constants(code), whole);
    }

    #[test]
    fn a_run_of_zeros_in_a_constant_is_written_out() {
        let code = r"local NONE <const> = '\2\0*3\27\0*12'
return NONE";
        let zeros = r"\0".repeat(12);
        let whole = format!("return '{}{zeros}'\n", r"\2\0\0\0\27");
        assert_eq!(without_constants(code), whole);
    }
}
