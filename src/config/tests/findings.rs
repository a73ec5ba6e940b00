//! What is refused, and how it is said.

use super::*;

/// Each is exactly one finding when it is added to settings that are fine.
const BAD_VALUES: &[(&str, &str)] = &[
    ("http.listen", "localhost:8080"),
    ("http.listen", "127.0.0.1"),
    ("http.public_url", "otp.test.example"),
    ("http.public_url", "https://user:pass@otp.example.com"),
    ("http.public_url", "https://otp.example.com/?a=b"),
    ("http.public_url", "https://otp.example.com/ä"),
    ("http.trusted_proxies", "10.0.0.1,proxy.example.com"),
    ("http.trusted_proxies", "10.0.0.0/33"),
    ("http.trusted_proxies", "0.0.0.0/0"),
    ("http.trusted_proxies", "::/0"),
    ("http.trusted_proxies", "::ffff:0.0.0.0/96"),
    ("http.trusted_proxies", "10.0.0.1/8"),
    ("http.trusted_proxies", "10.0.0.0/8/8"),
    ("http.forwarded_header", "x-real-ip"),
    ("http.cors_origins", "*"),
    ("http.cors_origins", "https://app.example.com/path"),
    ("http.cors_origins", "https://app.example.com/"),
    ("http.cors_origins", "https://*.example.com"),
    ("http.cors_origins", "https://user:hunter2@app.example.com"),
    ("http.cors_origins", "shop.example.org"),
    ("http.cors_origins", "null"),
    ("http.cors_origins", "file:///home"),
    ("http.api_keys", "hunter2hunter2"),
    (
        "http.api_keys",
        "otpost_hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2",
    ),
    ("http.api_keys", "sha256:hunter2"),
    (
        "http.api_keys",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
    ("ops.listen", ":8081"),
    ("ops.listen", "127.0.0.1:8080"),
    ("store.url", ""),
    ("store.url", "postgres://db.example.com"),
    ("store.url", "sqlite::memory:"),
    ("store.ca_file", "ca.pem"),
    ("store.durability", "everysec"),
    ("keys.master", "hunter2hunter2"),
    ("keys.previous", "hunter2hunter2"),
    (
        "keys.address",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ),
    ("otp.digits", "9"),
    ("otp.digits", "six"),
    ("otp.digits", ""),
    ("otp.lifetime", "11m"),
    ("otp.lifetime", "90s"),
    ("otp.lifetime", "600"),
    ("otp.attempts", "0"),
    ("otp.attempts", "11"),
    ("otp.resend", "never"),
    ("otp.step_up", "pow"),
    ("limits.enabled", "yes"),
    ("limits.address.cooldown", "2h"),
    ("limits.address.per_hour", "16"),
    ("limits.address.per_day", "0"),
    ("limits.address.failures_per_hour", "16"),
    ("limits.address.failures_per_day", "36"),
    ("limits.address.failures_per_month", "99999999999999999999"),
    ("limits.client.enabled", "1"),
    ("limits.client.generate_per_10m", "31"),
    ("limits.client.generate_per_hour", "-1"),
    ("limits.client.distinct_addresses_per_hour", "1.5"),
    ("limits.client.verify_failures_per_hour", "1000001"),
    ("limits.domain.per_minute", "0"),
    ("limits.global.per_minute", "-1"),
    ("queue.name", ""),
    ("queue.name", "otp:mail"),
    ("queue.prefix", "otp bull"),
    ("queue.concurrency", "0"),
    ("queue.concurrency", "10001"),
    ("queue.attempt_deadline", "12s"),
    ("queue.attempt_deadline", "1500ms"),
    ("queue.max_waiting", "0"),
    ("queue.keep_completed", "forever"),
    ("queue.keep_failed", "31d"),
    ("mail.transport", "sendmail"),
    ("mail.from", "otpost"),
    ("mail.from", "x\r\nBcc: victim@example.com <a@example.com>"),
    ("mail.product", ""),
    (
        "mail.product",
        "a name of more than sixty characters, which no subject can hold",
    ),
    ("mail.code_in_subject", "on"),
    ("mail.smtputf8", "yes"),
    ("mail.smtp.url", "mail.example.com:587"),
    (
        "mail.smtp.url",
        "smtp://user:hunter2hunter2@mail.example.com/?tls=none",
    ),
    ("mail.smtp.connections", "10001"),
    ("log.format", "yaml"),
    ("log.level", ""),
    ("log.level", "inof"),
    ("log.level", "otpost=loud"),
];

#[test]
fn a_bad_value_is_one_finding_with_its_setting_and_origin() {
    for (name, value) in BAD_VALUES {
        let found = findings_of(&production_with(&[(name, value)]));
        let shown = found.to_string();
        assert_eq!(found.len(), 1, "{name} = {value}: {shown}");
        let finding = found.iter().next().unwrap();
        let variable = variable_name(name);
        assert_eq!(finding.setting, *name);
        assert_eq!(finding.origin, Some(Origin::Variable(variable.clone())));
        assert!(
            shown.starts_with(&format!("`{name}` from `{variable}`: ")),
            "{shown}"
        );
        assert!(value.len() < 12 || !shown.contains(value), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_variable_without_anything_is_no_empty_list() {
    let lists = [
        "http.trusted_proxies",
        "http.cors_origins",
        "http.api_keys",
        "keys.previous",
    ];
    for nothing in ["", "  ", ",", " , ,"] {
        let given = lists.map(|name| (name, nothing));
        let found = findings_of(&production_with(&given));
        let shown = found.to_string();
        assert_eq!(found.len(), lists.len(), "{shown}");
        for name in lists {
            let variable = variable_name(name);
            let expected = format!(
                "`{name}` from `{variable}`: holds nothing; unset it, or write `[]` into the settings file"
            );
            assert!(shown.contains(&expected), "{shown}");
        }
    }
    let meant = Sources {
        file: from_file("[http]\napi_keys = []\n[keys]\nprevious = []\n").file,
        ..production_with(&[])
    };
    assert!(load(&meant).unwrap().settings.http.api_keys.is_empty());
}

#[test]
fn a_value_of_the_wrong_type_in_the_file_is_a_finding_with_its_line() {
    for (text, setting, line) in [
        ("[mail]\nproduct = 123456", "mail.product", 2),
        ("[otp]\n\n\ndigits = \"6\"", "otp.digits", 4),
        ("[otp]\nlifetime = 600", "otp.lifetime", 2),
        ("[otp]\ndigits = 6.0", "otp.digits", 2),
        ("[limits]\nenabled = \"true\"", "limits.enabled", 2),
        (
            "[http]\ntrusted_proxies = \"10.0.0.1\"",
            "http.trusted_proxies",
            2,
        ),
        ("[http]\ncors_origins = [1, 2]", "http.cors_origins", 2),
        ("[mail]\nfrom = 1979-05-27", "mail.from", 2),
        ("[mail]\nfrom = {}", "mail.from", 2),
    ] {
        let found = findings_of(&from_file(text));
        let finding = found
            .iter()
            .find(|finding| finding.setting == setting)
            .unwrap();
        let origin = Origin::File {
            path: PathBuf::from("otpost.toml"),
            line,
        };
        assert_eq!(finding.origin, Some(origin), "{found}");
        let expected = format!("`{setting}` from `otpost.toml` line {line}: must be ");
        assert!(finding.to_string().starts_with(&expected), "{found}");
    }
}

#[test]
fn an_unknown_name_suggests_the_nearest_known_one() {
    for (text, setting, hint) in [
        (
            "[mail.smtp]\nulr = \"x\"",
            "mail.smtp.ulr",
            "did you mean `mail.smtp.url`?",
        ),
        (
            "[smtp]\nconnections = 5",
            "smtp.connections",
            "did you mean `mail.smtp.connections`?",
        ),
        (
            "[mail]\nsmtp = \"x\"",
            "mail.smtp",
            "is a section, not a setting",
        ),
        (
            "[[mail.smtp]]\nurl = \"x\"",
            "mail.smtp",
            "is a section, not a setting",
        ),
        (
            "\"mail.from\" = \"x\"",
            "\"mail.from\"",
            "did you mean `mail.from`?",
        ),
        (
            "[mail.from]\nname = \"x\"",
            "mail.from.name",
            "unknown setting",
        ),
        ("[mial]", "mial", "unknown setting"),
    ] {
        let found = findings_of(&from_file(text));
        assert_eq!(found.len(), 1, "{text}: {found}");
        assert_eq!(found.iter().next().unwrap().setting, setting);
        assert!(found.to_string().contains(hint), "{found}");
    }
    assert_eq!(
        findings_of(&from_environment(&[("http_listen", "x")])).to_string(),
        "`http_listen` from `OTPOST__HTTP_LISTEN`: \
         unknown setting; did you mean `OTPOST__HTTP__LISTEN`?"
    );
}

#[test]
fn all_findings_come_at_once() {
    let mut sources = from_file("[otp]\ndigits = 12\nunknown = 1\n[log]\nformat = \"x\"");
    sources
        .environment
        .push(("OTPOST__HTTP__LISTEN".to_owned(), "x".to_owned()));
    sources
        .environment
        .push(("OTPOST__HTTP__PORT".to_owned(), "1".to_owned()));
    sources
        .flags
        .push(("ops.listen".to_owned(), "x".to_owned()));
    sources
        .flags
        .push(("store.url".to_owned(), "redis://127.0.0.1".to_owned()));
    let mut found = settings_refused(&sources);
    found.sort();
    assert_eq!(
        found,
        [
            "http.listen",
            "http.port",
            "keys.address",
            "keys.master",
            "log.format",
            "mail.from",
            "mail.smtp.url",
            "ops.listen",
            "otp.digits",
            "otp.unknown",
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_is_reported_with_the_rest_and_without_its_text() {
    let mut sources = from_file("[mail.smtp]\nurl = \"smtp://user:hunter2@host\n");
    sources
        .environment
        .push(("OTPOST__OTP__DIGITS".to_owned(), "5".to_owned()));
    let found = findings_of(&sources);
    let shown = found.to_string();
    assert_eq!(found.len(), 2, "{shown}");
    assert!(shown.starts_with("`otpost.toml`: line 2: "), "{shown}");
    assert!(!shown.contains("hunter2") && !format!("{found:?}").contains("hunter2"));
}

#[test]
fn settings_that_do_not_fit_together_are_refused() {
    const CLUSTER: (&str, &str) = ("store.url", "redis+cluster://192.0.2.1,192.0.2.2");
    const LOCAL: (&str, &str) = ("mail.smtp.url", "smtp://localhost");
    let [redis, master, address] = REDIS;
    let cases: [(Given, Role, &[&str]); 12] = [
        (&[redis], Role::All, &["keys.master", "keys.address"]),
        (&[redis, master], Role::Worker, &["keys.address"]),
        (&[master], Role::All, &["keys.address"]),
        (&[address], Role::All, &["keys.master"]),
        (
            &[("keys.previous", MASTER)],
            Role::All,
            &["keys.master", "keys.address"],
        ),
        (
            &[master, ("keys.address", MASTER)],
            Role::All,
            &["keys.address"],
        ),
        (&[], Role::Api, &["store.url"]),
        (&[], Role::Worker, &["store.url"]),
        (&[master, address, CLUSTER], Role::All, &["queue.prefix"]),
        (
            &[redis, master, address, ("store.ca_file", "a")],
            Role::All,
            &["store.ca_file"],
        ),
        (
            &[LOCAL, ("mail.smtp.ca_file", "a")],
            Role::All,
            &["mail.smtp.ca_file"],
        ),
        (
            &[
                ("http.listen", "0.0.0.0:80"),
                ("ops.listen", "127.0.0.1:80"),
            ],
            Role::All,
            &["ops.listen"],
        ),
    ];
    for (settings, role, expected) in cases {
        let mut sources = production_with(settings);
        sources.role = role;
        assert_eq!(settings_refused(&sources), expected, "{settings:?}");
    }
    let fitting = [master, address, CLUSTER, ("queue.prefix", "{bull}")];
    assert!(load(&production_with(&fitting)).is_ok());
}

#[test]
fn a_bad_value_makes_no_second_finding_about_its_stand_in() {
    let mut sources = production_with(&[("store.url", "redis://host:port"), ("keys.master", "x")]);
    sources.role = Role::Worker;
    assert_eq!(settings_refused(&sources), ["store.url", "keys.master"]);
}
