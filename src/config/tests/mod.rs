//! The settings as a whole: the layers and what they become.

mod development;
mod findings;
mod secrets;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::layers::variable_name;
use super::*;
use crate::otp::policy::{Resend, StepUp};

const MASTER: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The hash of an API key.
const API_KEY_HASH: &str =
    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ADDRESS: &str = "ICECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The least that a service needs outside development mode.
const PRODUCTION: [(&str, &str); 2] = [
    ("mail.smtp.url", "smtp://user:hunter2@mail.example.com"),
    ("mail.from", "otpost <no-reply@example.com>"),
];

const REDIS: [(&str, &str); 3] = [
    ("store.url", "redis://127.0.0.1"),
    ("keys.master", MASTER),
    ("keys.address", ADDRESS),
];

/// Names and values of settings.
type Given<'a> = &'a [(&'a str, &'a str)];

fn from_environment(settings: Given) -> Sources {
    let variable = |(name, value): &(&str, &str)| (variable_name(name), (*value).to_owned());
    Sources {
        environment: settings.iter().map(variable).collect(),
        ..Sources::default()
    }
}

/// What is given beside the least wins over it.
fn production_with(settings: Given) -> Sources {
    from_environment(&[&PRODUCTION[..], settings].concat())
}

fn from_file(text: &str) -> Sources {
    Sources {
        file: Some((PathBuf::from("otpost.toml"), text.to_owned())),
        ..Sources::default()
    }
}

fn findings_of(sources: &Sources) -> Findings {
    load(sources).expect_err("these settings are not usable")
}

fn settings_refused(sources: &Sources) -> Vec<String> {
    findings_of(sources)
        .iter()
        .map(|finding| finding.setting.clone())
        .collect()
}

#[test]
fn default_toml_and_settings_name_the_same_fields() {
    let defaults = layers::defaults();
    let shown = format!("{:#?}", load(&Sources::default()).unwrap().settings);
    let mut fields = BTreeSet::new();
    let mut path: Vec<&str> = Vec::new();
    for line in shown.lines() {
        let depth = (line.len() - line.trim_start().len()) / 4;
        let Some((field, rest)) = line.trim_start().split_once(": ") else {
            continue;
        };
        path.truncate(depth - 1);
        let is_inside_a_field = path.len() + 1 < depth || fields.contains(&path.join("."));
        path.push(field);
        let name = path.join(".");
        let is_section = rest.ends_with('{') && !defaults.names.contains(&name);
        if !is_inside_a_field && !is_section {
            fields.insert(name);
        }
    }
    // Development mode is decided, and files with secrets have become the secrets.
    assert!(fields.remove("development"));
    let is_field = |name: &&String| !name.ends_with("_file") || name.ends_with("ca_file");
    let names: BTreeSet<String> = defaults.names.iter().filter(is_field).cloned().collect();
    assert_eq!(fields, names);
}

#[test]
fn every_default_is_explained() {
    let mut is_explained = false;
    for line in DEFAULTS.lines() {
        if line.is_empty() || line.starts_with('[') {
            is_explained = false;
        } else if line.starts_with('#') {
            is_explained = true;
        } else {
            assert!(is_explained, "{line}");
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let settings = load(&Sources::default()).unwrap().settings;
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.ops.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.store.url.to_string(), "sqlite:otpost.db");
    assert_eq!((settings.otp.digits, settings.otp.attempts), (6, 5));
    assert_eq!(settings.otp.lifetime, Duration::from_secs(600));
    assert_eq!(
        (settings.otp.resend, settings.otp.step_up),
        (Resend::Keep, StepUp::Digits8)
    );
    let address = &settings.limits.address;
    assert_eq!(address.cooldown, Duration::from_secs(30));
    assert_eq!((address.per_hour, address.per_day), (5, 15));
    assert_eq!(
        [
            address.failures_per_hour,
            address.failures_per_day,
            address.failures_per_month
        ],
        [10, 15, 35]
    );
    assert!(settings.limits.enabled && settings.limits.client.enabled);
    assert_eq!(
        (settings.queue.name.as_str(), settings.queue.prefix.as_str()),
        ("otp", "bull")
    );
    assert_eq!(settings.queue.attempt_deadline, Duration::from_secs(8));
    assert_eq!(
        settings.queue.keep_failed,
        Duration::from_secs(24 * 60 * 60)
    );
    assert_eq!(
        (settings.queue.concurrency, settings.mail.smtp.connections),
        (50, 50)
    );
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let digits = |sources: &Sources| {
        let config = load(sources).unwrap();
        (
            config.settings.otp.digits,
            config.origin("otp.digits").unwrap().to_string(),
        )
    };
    let mut sources = production_with(&[]);
    assert_eq!(digits(&sources), (6, "default".to_owned()));
    sources.file = Some((
        PathBuf::from("etc/o.toml"),
        "[otp]\ndigits = 7\n".to_owned(),
    ));
    assert_eq!(digits(&sources), (7, "etc/o.toml".to_owned()));
    sources
        .environment
        .push(("OTPOST__OTP__DIGITS".to_owned(), "8".to_owned()));
    assert_eq!(digits(&sources), (8, "OTPOST__OTP__DIGITS".to_owned()));
    sources
        .flags
        .push(("otp.digits".to_owned(), "6".to_owned()));
    assert_eq!(digits(&sources), (6, "flag".to_owned()));
}

#[test]
fn a_value_from_the_environment_takes_the_type_of_its_default() {
    let config = load(&production_with(&[
        ("mail.product", "123456"),
        ("queue.name", "true"),
        ("otp.digits", " 8 "),
        ("mail.code_in_subject", "true"),
        ("mail.smtputf8", "true"),
        (
            "http.cors_origins",
            "https://a.example.com, https://b.example.com:8443",
        ),
    ]))
    .unwrap();
    assert_eq!(config.settings.mail.product, "123456");
    assert_eq!(config.settings.queue.name, "true");
    assert_eq!(config.settings.otp.digits, 8);
    assert!(config.settings.mail.code_in_subject);
    assert!(config.settings.mail.smtputf8);
    let origins = ["https://a.example.com", "https://b.example.com:8443"];
    assert_eq!(config.settings.http.cors_origins, origins);
    assert!(
        config
            .print()
            .contains("product = \"123456\"  # OTPOST__MAIL__PRODUCT\n")
    );
}

#[test]
fn what_is_understood_is_typed() {
    let settings = load(&production_with(&[
        ("http.public_url", "https://example.com/otp/"),
        ("mail.templates", "templates"),
        ("mail.smtp.connections", "3"),
        ("log.level", "info,otpost::queue=debug"),
        ("keys.master", MASTER),
        ("keys.address", ADDRESS),
        ("keys.previous", ADDRESS),
    ]))
    .unwrap()
    .settings;
    assert_eq!(settings.http.public_url, "https://example.com/otp");
    assert_eq!(settings.mail.templates, Some(PathBuf::from("templates")));
    assert_eq!(
        (settings.mail.smtp.connections, settings.queue.concurrency),
        (3, 50)
    );
    assert_eq!(settings.mail.smtp.url.unwrap().host, "mail.example.com");
    assert_eq!(
        settings.mail.from.address.recipient(),
        "no-reply@example.com"
    );
    assert_eq!(settings.keys.master.unwrap().expose()[..3], [0, 1, 2]);
    assert_eq!(settings.keys.previous.len(), 1);
    assert_eq!(settings.log.level, "info,otpost::queue=debug");
}

#[test]
fn variables_of_others_and_empty_sections_are_passed_over() {
    let mut sources = from_file("[mail]\n[mail.smtp]\n[limits]\n");
    for name in [
        "OTPOST_PORT",
        "OTPOST_SERVICE_HOST",
        "PATH",
        "NOT_OTPOST__HTTP__LISTEN",
    ] {
        sources.environment.push((name.to_owned(), "x".to_owned()));
    }
    assert!(load(&sources).unwrap().settings.development);
}

#[test]
fn what_is_printed_is_toml_with_every_setting_in_order() {
    let printed = load(&Sources::default()).unwrap().print();
    assert!(
        printed.starts_with("[http]\nlisten = \"127.0.0.1:8080\"  # default\n"),
        "{printed}"
    );
    assert!(
        printed.contains("\n\n[limits.address]\ncooldown = \"30s\"  # default\n"),
        "{printed}"
    );
    assert!(
        printed.contains("\ntransport = \"mailbox\"  # development mode\n"),
        "{printed}"
    );
    assert!(
        printed.contains("\nmaster = \"\"  # default\n"),
        "{printed}"
    );
    let leaves = file::parse_file(&printed).unwrap();
    let names: Vec<String> = leaves.into_iter().map(|leaf| leaf.name).collect();
    assert_eq!(names, layers::defaults().names);
}

#[test]
fn a_role_is_written_as_on_the_command_line() {
    for role in [Role::All, Role::Api, Role::Worker] {
        assert_eq!(role.as_str().parse(), Ok(role));
    }
    assert!("both".parse::<Role>().is_err());
    assert!(Role::All.mails() && Role::All.answers());
    assert!(!Role::Api.mails() && !Role::Worker.answers());
}

#[test]
fn origins_are_kept_as_browsers_write_them() {
    for (given, kept) in [
        ("https://App.Example.com", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("https://app.example.com:80", "https://app.example.com:80"),
        ("http://localhost:80", "http://localhost"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
    ] {
        let config = load(&production_with(&[("http.cors_origins", given)])).unwrap();
        assert_eq!(config.settings.http.cors_origins, [kept], "{given}");
    }
}
