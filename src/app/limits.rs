//! The limits in effect in words: what one address, one client, one domain and all may have, and how
//! likely they leave it that somebody guesses a code.

use crate::config::Settings;
use crate::otp::breaker::{ALWAYS_BORNE, USUAL_DAYS_BORNE};
use crate::otp::policy::{
    FAILURES_PER_CLIENT_PER_DAY, Policy, STEPPED_DIGITS, STEPPED_FAILURES_PER_DAY, StepUp,
};

use super::parts;

/// The probability that a code of one address is guessed within a year, at most.
pub fn bound(policy: &Policy) -> String {
    if policy.limits.is_none() {
        return "none: `limits.enabled` is false, so codes can be guessed".to_owned();
    }
    let percent = policy.yearly_guess_bound() * 100.0;
    format!("{percent:.4} % a year for one address")
}

/// The effective limits and the bound, a line each.
pub fn describe(settings: &Settings) -> String {
    let policy = parts::policy(settings);
    let mut lines = Vec::new();
    if let Some(limits) = policy.limits {
        let step_up = match policy.step_up {
            StepUp::Digits8 => format!(
                "codes of {STEPPED_DIGITS} digits, {STEPPED_FAILURES_PER_DAY} wrong ones a day"
            ),
            StepUp::Block => "no code until the budget recovers".to_owned(),
        };
        // Without limits of clients nobody knows whose a failure is.
        let share = match policy.limits_of_clients() {
            Some(_) => format!(", {FAILURES_PER_CLIENT_PER_DAY} a day by one client network"),
            None => String::new(),
        };
        let cooldown = limits.cooldown.as_secs_f64();
        lines.push("One address, all spellings and contexts together:".to_owned());
        lines.push(format!(
            "  mails        {} an hour, {} a day, {cooldown} s apart for one context",
            limits.per_hour, limits.per_day
        ));
        lines.push(format!(
            "  wrong codes  {} an hour, {} a day, {} in 30 days{share}",
            limits.failures_per_hour, limits.failures_per_day, limits.failures_per_month
        ));
        lines.push(format!("  beyond       {step_up}"));
    }
    if let Some(limits) = policy.limits_of_clients() {
        lines.push(
            "One client, an IPv4 address or an IPv6 /64 (a /56 twice, a /48 four times as much):"
                .to_owned(),
        );
        lines.push(format!(
            "  requests     {} in ten minutes, {} an hour, for {} addresses an hour",
            limits.generate_per_10m, limits.generate_per_hour, limits.distinct_addresses_per_hour
        ));
        lines.push(format!(
            "  wrong codes  {} an hour",
            limits.verify_failures_per_hour
        ));
    }
    if let (Some(normal), Some(stepped)) =
        (policy.yearly_guesses(), policy.yearly_stepped_guesses())
    {
        lines.push(format!(
            "Guesses in a year: at most {normal} at codes of {} digits, {stepped} at stepped-up ones.",
            policy.digits
        ));
    }
    lines.push(format!("Chance of a right guess: {}.", bound(&policy)));
    if settings.limits.enabled {
        lines.extend(of_all(settings));
    }
    lines.join("\n")
}

/// The limits that are not one address's.
fn of_all(settings: &Settings) -> [String; 4] {
    let limits = &settings.limits;
    let global = match limits.global.per_minute {
        0 => "any number of mails".to_owned(),
        per_minute => format!("{per_minute} requests accepted in any minute, beyond them 503"),
    };
    let domain = limits.domain.per_minute;
    let beyond = match settings.otp.step_up {
        StepUp::Digits8 => format!("new codes have {STEPPED_DIGITS} digits"),
        StepUp::Block => "a warning in the log".to_owned(),
    };
    [
        format!("One recipient domain: {domain} mails in any minute, the others wait."),
        format!("The whole service: {global}."),
        format!(
            "  wrong codes  {ALWAYS_BORNE} a day that no right one follows, or \
             {USUAL_DAYS_BORNE} times a usual day if that is more"
        ),
        format!("  beyond       {beyond}"),
    ]
}
