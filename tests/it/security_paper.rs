//! SECURITY.md and README.md against the code: each number is one that the code has by default. A
//! digit that is left in SECURITY.md when those are taken out is a promise that nobody compares.

use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use otpost::api::body::{BODY_BYTES, BODY_DEADLINE};
use otpost::api::connection::LINGER_BYTES;
use otpost::api::exchange::URI_BYTES;
use otpost::api::framing::{HEAD_BYTES, HEAD_FIELDS};
use otpost::api::server;
use otpost::app::{LOOK_DEADLINE, STOP_DEADLINE};
use otpost::cli::LAST_WAIT;
use otpost::config::{self, Settings, Sources};
use otpost::otp::address::EmailAddress;
use otpost::otp::breaker::{ALWAYS_BORNE, USUAL_DAYS_BORNE};
use otpost::otp::client_budget::{FACTORS, IPV6_PREFIXES};
use otpost::otp::code::Nonce;
use otpost::otp::keys::KeyRing;
use otpost::otp::pace::MINUTE;
use otpost::otp::policy::{
    DAY, FAILURES_PER_CLIENT_PER_DAY, HOUR, LIVE_CODES, MONTH, Policy, STEPPED_DIGITS,
    STEPPED_FAILURES_PER_DAY, TEN_MINUTES,
};
use otpost::otp::record::REPLAY_TIME;

use crate::support::process::RESCUE;

const PAPER: &str = include_str!("../../SECURITY.md");
const README: &str = include_str!("../../README.md");

/// What has digits and is no promise of a number: names of documents, protocols and networks, and the
/// words of the standard.
const REFERENCES: [&str; 15] = [
    "SP 800-63B-4",
    "ASVS 5.0.0",
    "RFC 5321",
    "RFC 9112",
    "HTTP/1.0",
    "HTTP/1.1",
    "SHA-256",
    "promises 2, 3, 8 and 10",
    "promise 4",
    "promise 7",
    "Promise 8",
    "at least 20 bits, 6 digits named as enough",
    "the 64 bits that are to be considered",
    "at most 10 minutes",
    "level 3",
];

fn defaults() -> Settings {
    match config::load(&Sources::default()) {
        Ok(config) => config.settings,
        Err(findings) => panic!("the defaults are refused: {findings:?}"),
    }
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        digits: settings.otp.digits,
        lifetime: settings.otp.lifetime,
        attempts: settings.otp.attempts,
        resend: settings.otp.resend,
        limits: Some(settings.limits.address),
        client_limits: None,
        step_up: settings.otp.step_up,
    }
}

fn whole(span: Duration, unit: u64) -> u64 {
    assert_eq!(span.as_secs() % unit, 0, "{span:?}");
    span.as_secs() / unit
}

fn kib(bytes: usize) -> usize {
    assert_eq!(bytes % 1_024, 0, "{bytes}");
    bytes / 1_024
}

/// What the paper says of codes and of one mailbox.
fn of_codes(settings: &Settings) -> Vec<String> {
    let policy = policy(settings);
    let address = settings.limits.address;
    let (normal, stepped) = (
        policy.yearly_guesses().unwrap(),
        policy.yearly_stepped_guesses().unwrap(),
    );
    let digits = policy.digits;
    assert_eq!((whole(HOUR, 3_600), whole(DAY, 86_400)), (1, 1));
    vec![
        format!(
            "at most {:.4} % a year",
            policy.yearly_guess_bound() * 100.0
        ),
        format!(
            "within {} s, when the answer was lost",
            REPLAY_TIME.as_secs()
        ),
        format!(
            "{} an hour, {} a day, {} in {} days, cleared",
            address.failures_per_hour,
            address.failures_per_day,
            address.failures_per_month,
            whole(MONTH, 86_400)
        ),
        format!(
            "codes have {STEPPED_DIGITS} digits and {STEPPED_FAILURES_PER_DAY} wrong ones a day"
        ),
        format!(
            "{normal} × {LIVE_CODES} / 10^{digits} + {stepped} × {LIVE_CODES} / 10^{STEPPED_DIGITS}"
        ),
        format!("by itself** after {} minutes", whole(policy.lifetime, 60)),
        format!("with {} wrong attempts", policy.attempts),
        format!("by {} hex digits", pseudonym_digits()),
        format!(
            "at most {} mails an hour and {} a day**, {} s apart",
            address.per_hour,
            address.per_day,
            whole(address.cooldown, 1)
        ),
        format!("still signs in, with {STEPPED_DIGITS} digits"),
        format!("the {STEPPED_FAILURES_PER_DAY} stepped-up failures of the day, which takes three"),
        format!("takes up to {} days", whole(MONTH, 86_400)),
        format!("under a key of {} bytes", KEY_BYTES),
        format!("a nonce of {} bytes", size_of::<Nonce>()),
        format!("| {digits} digits, leading zeros"),
        format!("| {} minutes from the making", whole(policy.lifetime, 60)),
        format!("`otp.digits = {}`", otpost::otp::code::DIGITS.end()),
    ]
}

/// What it says of clients, domains and everybody.
fn of_others(settings: &Settings) -> Vec<String> {
    let client = &settings.limits.client;
    let [_own, wider, widest] = FACTORS;
    let [own_bits, wider_bits, widest_bits] = IPV6_PREFIXES;
    let networks = STEPPED_FAILURES_PER_DAY.div_ceil(FAILURES_PER_CLIENT_PER_DAY);
    assert_eq!(networks, 3, "that spend an address's stepped-up failures");
    let a_year = policy(settings).yearly_guess_bound();
    // "About one" of so many.
    let attacked = 1_000;
    assert!(
        (0.5..1.5).contains(&(a_year * f64::from(attacked))),
        "{a_year}"
    );
    assert_eq!(whole(MINUTE, 60), 1);
    vec![
        format!(
            "ask for {} codes in {} minutes, {} an hour, for {} different addresses an hour, be wrong {} times an hour, and spend {FAILURES_PER_CLIENT_PER_DAY} of one",
            client.generate_per_10m,
            whole(TEN_MINUTES, 60),
            client.generate_per_hour,
            client.distinct_addresses_per_hour,
            client.verify_failures_per_hour
        ),
        format!("(an IPv4 address or an IPv6 /{own_bits})"),
        format!(
            "A /{wider_bits} may have {wider} times and a /{widest_bits} {widest} times as much"
        ),
        format!(
            "at most {} mails a minute",
            settings.limits.domain.per_minute
        ),
        format!("than {ALWAYS_BORNE} and than {USUAL_DAYS_BORNE} times what is usual"),
        format!("every new code has {STEPPED_DIGITS} digits"),
        format!("With {attacked} addresses"),
    ]
}

/// What it says of HTTP and mail servers.
fn of_protocols(settings: &Settings) -> Vec<String> {
    let server = server::Limits::default();
    vec![
        format!("the answer is {}", StatusCode::SERVICE_UNAVAILABLE.as_u16()),
        format!(
            "The {} of a generate",
            StatusCode::TOO_MANY_REQUESTS.as_u16()
        ),
        format!(
            "a head takes at most {} s, a body {} s, a whole request {} s, an idle connection {} s",
            whole(server.head, 1),
            whole(BODY_DEADLINE, 1),
            whole(server.request, 1),
            whole(server.idle, 1)
        ),
        format!(
            "thrown away for at most {} s and {} MiB",
            whole(server.linger, 1),
            kib(kib(LINGER_BYTES))
        ),
        format!(
            "at most {} KiB and {HEAD_FIELDS} fields, a target {} KiB, a body {} KiB",
            kib(HEAD_BYTES),
            kib(URI_BYTES),
            kib(BODY_BYTES)
        ),
        format!("ends after {} s", whole(settings.queue.attempt_deadline, 1)),
    ]
}

/// The length of a key, as both constructors of a ring take it.
const KEY_BYTES: usize = size_of::<[u8; 32]>();

fn pseudonym_digits() -> usize {
    let keys = KeyRing::new(&[1; KEY_BYTES], &[], &[2; KEY_BYTES]);
    let address = EmailAddress::parse("ada@example.org").unwrap();
    address.pseudonym(&keys).len()
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_numbers_of_the_readme_are_the_codes() {
    let readme = in_one_line(README);
    let bound = policy(&defaults()).yearly_guess_bound() * 100.0;
    let stop = STOP_DEADLINE + LOOK_DEADLINE + LAST_WAIT;
    // A second for the rest of the way.
    let stopped = whole(stop, 1) + 1;
    for promise in [
        format!("the chance that they leave: {bound:.4} % a year"),
        format!("goes out within {} s", whole(RESCUE, 1)),
        format!("exits within {stopped} s"),
    ] {
        assert!(
            readme.contains(&promise),
            "README.md does not say: {promise}"
        );
    }
}

#[test]
fn every_number_in_security_md_is_the_codes() {
    let settings = defaults();
    let mut paper = in_one_line(PAPER);
    // The numbers of the promises themselves.
    for number in (1..=12).rev() {
        paper = paper.replacen(&format!(" {number}. **"), " **", 1);
    }
    let promises = [
        of_codes(&settings),
        of_others(&settings),
        of_protocols(&settings),
    ];
    for promise in promises.concat() {
        assert!(
            paper.contains(&promise),
            "SECURITY.md does not say: {promise}"
        );
        paper = paper.replacen(&promise, "…", 1);
    }
    for reference in REFERENCES {
        assert!(paper.contains(reference), "nothing refers to {reference}");
        paper = paper.replace(reference, "…");
    }
    let left: Vec<&str> = paper
        .split(' ')
        .filter(|word| !word.trim_start_matches('(').starts_with("V6."))
        .filter(|word| word.contains(|character: char| character.is_ascii_digit()))
        .collect();
    assert!(left.is_empty(), "numbers that nobody compares: {left:?}");
}

#[test]
fn every_file_that_security_md_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for word in PAPER.split('`').skip(1).step_by(2) {
        let is_path = word.starts_with("tests/") || word.starts_with("src/");
        if is_path {
            assert!(root.join(word).exists(), "{word} is not there");
            named += 1;
        }
    }
    assert!(named > 5, "{named}");
}
