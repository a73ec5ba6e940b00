//! Who is in development mode, and who may not be.

use super::*;

fn with_development_flag(settings: Given) -> Sources {
    let flags = vec![("dev".to_owned(), "true".to_owned())];
    Sources {
        flags,
        ..from_environment(settings)
    }
}

#[test]
fn only_listeners_limits_and_logging_keep_development_mode() {
    for settings in [
        &[][..],
        &[("http.listen", "127.0.0.1:0"), ("ops.listen", "[::1]:0")],
        &[
            ("limits.enabled", "false"),
            ("limits.address.cooldown", "0s"),
            ("log.level", "debug"),
        ],
        &[("mail.transport", "mailbox"), ("otp.digits", "8")],
    ] {
        let settings_read = load(&from_environment(settings)).unwrap().settings;
        assert!(settings_read.development, "{settings:?}");
        assert_eq!(settings_read.mail.transport, Transport::Mailbox);
        assert_eq!(settings_read.mail.from.domain(), "otpost.localhost");
    }
    for setting in [
        ("otp.digits", "8"),
        ("http.public_url", "https://a.example.com"),
        ("mail.from", ""),
    ] {
        let refused = settings_refused(&from_environment(&[setting]));
        assert_eq!(refused, ["mail.smtp.url", "mail.from"], "{setting:?}");
    }
    assert!(!load(&production_with(&[])).unwrap().settings.development);
}

#[test]
fn the_flag_wins_over_a_configured_mail_server() {
    let configured = [PRODUCTION[0], PRODUCTION[1], ("mail.transport", "smtp")];
    let settings = load(&from_environment(&configured)).unwrap().settings;
    assert_eq!(settings.mail.transport, Transport::Smtp);
    let settings = load(&with_development_flag(&configured)).unwrap().settings;
    assert!(settings.development);
    assert_eq!(settings.mail.transport, Transport::Mailbox);
    assert_eq!(
        settings.mail.from.address.recipient(),
        "no-reply@example.com"
    );
}

#[test]
fn development_mode_refuses_to_be_reached_by_others() {
    let [local_redis, master, address] = REDIS;
    let cluster = ("store.url", "redis+cluster://127.0.0.1:1,192.0.2.1:2");
    let cases: [(Given, Role, &str); 8] = [
        (&[("http.listen", "0.0.0.0:8080")], Role::All, "http.listen"),
        (&[("ops.listen", "192.0.2.1:8081")], Role::All, "ops.listen"),
        (
            &[("http.trusted_proxies", "10.0.0.1")],
            Role::All,
            "http.trusted_proxies",
        ),
        (
            &[("http.api_keys", API_KEY_HASH)],
            Role::All,
            "http.api_keys",
        ),
        (
            &[master, address, ("store.url", "redis://192.0.2.1")],
            Role::All,
            "store.url",
        ),
        (
            &[master, address, ("queue.prefix", "{bull}"), cluster],
            Role::All,
            "store.url",
        ),
        (&REDIS, Role::Api, "--role"),
        (&REDIS, Role::Worker, "--role"),
    ];
    for (settings, role, setting) in cases {
        let sources = Sources {
            role,
            ..with_development_flag(settings)
        };
        assert_eq!(settings_refused(&sources), [setting], "{settings:?}");
    }
    let local = [local_redis, master, address];
    assert!(
        load(&with_development_flag(&local))
            .unwrap()
            .settings
            .development
    );
}

#[test]
fn redis_needs_keys_in_development_mode_too() {
    let refused = settings_refused(&with_development_flag(&[REDIS[0]]));
    assert_eq!(refused, ["keys.master", "keys.address"]);
}

#[test]
fn outside_it_roles_that_mail_need_a_server_and_a_sender() {
    let mut sources = from_environment(&REDIS);
    for role in [Role::All, Role::Worker] {
        sources.role = role;
        assert_eq!(settings_refused(&sources), ["mail.smtp.url", "mail.from"]);
    }
    sources.role = Role::Api;
    let settings = load(&sources).unwrap().settings;
    assert!(!settings.development && settings.mail.smtp.url.is_none());
}
