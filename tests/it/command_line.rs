//! The command line of the built program.

use std::process::Output;

use crate::support::process::{Setup, terminate};
use crate::support::redis_server::free_port;
use crate::support::smtp_server::{Act, Options, SmtpServer};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn config_check_names_everything_that_is_wrong_at_once() {
    let setup = Setup::bare()
        .with("otp.digits", "5")
        .with("otp.lifetime", "1h")
        .with("mail.smtp.url", "smtp://user:sesame@mail.example.com")
        .with("http.listen", "nonsense");
    let output = setup.run(&["config", "check"]).await;
    assert_eq!(output.status.code(), Some(2));
    let text = said(&output);
    for name in [
        "otp.digits",
        "otp.lifetime",
        "mail.from",
        "http.listen",
        "http.listen",
    ] {
        assert!(text.contains(name), "{name} is missing in\n{text}");
    }
    assert!(!text.contains("sesame"), "{text}");
}

#[tokio::test]
async fn config_check_is_silent_about_nothing_when_all_is_well() {
    let output = Setup::bare().run(&["config", "check"]).await;
    assert!(output.status.success());
    assert_eq!(said(&output), "The settings are usable.\n");
}

#[tokio::test]
async fn config_print_masks_secrets_and_shows_origins() {
    let setup =
        Setup::mailing_to("smtp://user:sesame@mail.example.com").on_redis("redis://10.0.0.1");
    let output = setup.run(&["config", "print"]).await;
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        !text.contains("sesame") && !text.contains("AAECAwQF"),
        "{text}"
    );
    assert!(text.contains("OTPOST__MAIL__SMTP__URL"), "{text}");
    assert!(text.contains("# default"), "{text}");
}

#[tokio::test]
async fn the_pseudonym_of_an_address_is_the_one_in_the_log_and_makes_no_keys() {
    let smtp = SmtpServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url());
    let unknown = setup.run(&["pseudonym", "ada@example.org"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    assert!(!setup.folder().join("otpost.db.keys").exists());

    let process = setup.start().await;
    let id = process.generate("Ada@example.org").await;
    process.wait_for_state(&id, "sent").await;
    let told = said(&setup.run(&["pseudonym", "ada@example.org"]).await);
    let (_, log) = process.stop().await;
    assert_eq!(told.trim().len(), 12, "{told}");
    assert!(
        log.contains(&format!("\"address\":\"{}\"", told.trim())),
        "{log}"
    );
    assert!(
        !log.to_lowercase().contains("ada@") && !log.contains("***@"),
        "{log}"
    );
    let other = said(&setup.run(&["pseudonym", "bob@example.org"]).await);
    assert_ne!(told, other);
}

#[tokio::test]
async fn limits_are_printed_with_the_bound_that_they_come_to() {
    let usual = said(&Setup::bare().run(&["limits"]).await);
    for part in [
        "5 an hour, 15 a day, 30 s apart",
        "10 an hour, 15 a day, 35 in 30 days, 5 a day by one client network",
        "codes of 8 digits, 12 wrong ones a day",
        "requests     10 in ten minutes, 30 an hour, for 10 addresses an hour",
        "wrong codes  20 an hour",
        "at most 455 at codes of 6 digits, 4392 at stepped-up ones",
        "0.0998 % a year for one address",
        "One recipient domain: 60 mails in any minute",
        "The whole service: any number of mails",
        "500 a day that no right one follows, or 3 times a usual day",
        "new codes have 8 digits",
    ] {
        assert!(usual.contains(part), "{part} is missing in\n{usual}");
    }
    let setup = Setup::mailing_to("smtp://127.0.0.1")
        .with("otp.step_up", "block")
        .with("limits.global.per_minute", "600")
        .with("limits.address.failures_per_month", "15");
    let stricter = said(&setup.run(&["limits"]).await);
    assert!(stricter.contains("0.0390 % a year"), "{stricter}");
    assert!(
        stricter.contains("600 requests accepted in any minute"),
        "{stricter}"
    );
    assert!(stricter.contains("a warning in the log"), "{stricter}");
    let setup = Setup::bare().with("limits.client.enabled", "false");
    let unlimited = said(&setup.run(&["limits"]).await);
    assert!(!unlimited.contains("One client"), "{unlimited}");
    assert!(unlimited.contains("35 in 30 days"), "{unlimited}");
    assert!(!unlimited.contains("by one client network"), "{unlimited}");
    let setup = Setup::bare().with("limits.enabled", "false");
    let none = said(&setup.run(&["limits"]).await);
    assert!(!none.contains("in any minute"), "{none}");
    assert!(none.contains("codes can be guessed"), "{none}");
}

#[tokio::test]
async fn the_log_says_at_the_start_how_likely_a_guess_is() {
    let process = Setup::bare().with("log.level", "info").start().await;
    let (_, written) = process.stop().await;
    let logged = written.lines().any(|line| {
        line.starts_with('{')
            && line.contains("\"guess_bound\":\"0.0998 % a year for one address\"")
    });
    assert!(logged, "{written}");
}

#[tokio::test]
async fn keygen_prints_keys_that_the_settings_take() {
    let output = Setup::bare().run(&["keygen"]).await;
    let again = Setup::bare().run(&["keygen"]).await;
    assert_ne!(output.stdout, again.stdout, "every pair is another");
    let setup = Setup::mailing_to("smtps://mail.example.com").with("store.url", "redis://10.0.0.1");
    let file = setup.folder().join("otpost.toml");
    assert!(
        !setup.run(&["config", "check"]).await.status.success(),
        "Redis needs keys"
    );
    std::fs::write(file, &output.stdout).unwrap();
    let checked = setup.run(&["config", "check"]).await;
    assert!(checked.status.success(), "{}", said(&checked));
}

#[tokio::test]
async fn apikey_prints_a_key_and_the_line_that_lists_it() {
    let output = Setup::bare().run(&["apikey"]).await;
    let again = Setup::bare().run(&["apikey"]).await;
    assert_ne!(output.stdout, again.stdout, "every key is another");
    let text = String::from_utf8(output.stdout).unwrap();
    let (key, line) = text.split_once('\n').unwrap();
    assert!(key.starts_with("otpost_") && key.len() == 59, "{key}");
    let setup = Setup::mailing_to("smtps://mail.example.com");
    let file = setup.folder().join("otpost.toml");
    std::fs::write(&file, format!("[http]\n{line}")).unwrap();
    let checked = setup.run(&["config", "check"]).await;
    assert!(checked.status.success(), "{}", said(&checked));

    std::fs::write(file, format!("[http]\napi_keys = [\"{key}\"]\n")).unwrap();
    let checked = setup.run(&["config", "check"]).await;
    assert_eq!(checked.status.code(), Some(2));
    assert!(
        said(&checked).contains("http.api_keys"),
        "{}",
        said(&checked)
    );
    assert!(!said(&checked).contains(&key[7..]), "{}", said(&checked));
}

#[tokio::test]
async fn openapi_prints_the_committed_document() {
    let output = Setup::bare().run(&["openapi"]).await;
    let committed = include_str!("../../openapi.json");
    assert_eq!(String::from_utf8_lossy(&output.stdout), committed);
}

#[tokio::test]
async fn version_is_that_of_the_package() {
    let output = Setup::bare().run(&["--version"]).await;
    assert_eq!(
        said(&output),
        format!("otpost {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn healthcheck_tells_a_ready_process_from_none() {
    let mut setup = Setup::bare();
    let process = setup.start().await;
    let asking = Setup::bare().with("ops.listen", &process.ops().to_string());
    let ready = asking.run(&["healthcheck"]).await;
    assert!(ready.status.success(), "{}", said(&ready));
    process.kill().await;
    let gone = asking.run(&["healthcheck"]).await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(said(&gone).contains("not ready"), "{}", said(&gone));
}

#[tokio::test]
async fn mail_test_sends_a_sample_or_says_why_not() {
    let smtp = SmtpServer::start().await;
    let setup = Setup::mailing_to(&smtp.url());
    let output = setup.run(&["mail", "test", "ada@example.org"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(smtp.next_mail().await.to, ["ada@example.org"]);

    smtp.always("RCPT", Act::Reply("550 5.1.1 unknown"));
    let refused = setup.run(&["mail", "test", "ada@example.org"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("550"), "{}", said(&refused));

    let development = Setup::bare()
        .run(&["mail", "test", "ada@example.org"])
        .await;
    assert!(
        said(&development).contains("mail.smtp.url"),
        "{}",
        said(&development)
    );
}

#[tokio::test]
async fn addresses_beyond_ascii_are_taken_where_the_api_takes_them() {
    let smtp = SmtpServer::start_with(Options {
        smtputf8: true,
        ..Options::default()
    })
    .await;
    let commands = [
        &["mail", "test", "jose\u{301}@example.org"][..],
        &["pseudonym", "jose\u{301}@example.org"],
    ];
    let setup = Setup::mailing_to(&smtp.url()).on_redis("redis://127.0.0.1");
    for arguments in commands {
        let refused = setup.run(arguments).await;
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(
            said(&refused).contains("mail.smtputf8"),
            "{}",
            said(&refused)
        );
    }
    let setup = setup.with("mail.smtputf8", "true");
    for arguments in commands {
        let output = setup.run(arguments).await;
        assert!(output.status.success(), "{}", said(&output));
    }
    let nobody = setup.run(&["pseudonym", "@example.org"]).await;
    assert_eq!(nobody.status.code(), Some(2));
    assert!(said(&nobody).contains("local@domain"), "{}", said(&nobody));
    assert_eq!(smtp.next_mail().await.to, ["jos\u{e9}@example.org"]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_setting() {
    let setup = Setup::bare();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ops = format!("127.0.0.1:{}", free_port());
    let setup = setup.with("http.listen", &address).with("ops.listen", &ops);
    let output = setup.run(&["serve"]).await;
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(
        text.contains("http.listen") && text.contains(&address),
        "{text}"
    );
}

#[tokio::test]
async fn a_database_without_its_keys_and_one_in_use_are_refused() {
    let mut setup = Setup::bare();
    let process = setup.start().await;
    let ports = |setup: Setup| {
        let listen = || format!("127.0.0.1:{}", free_port());
        setup
            .with("http.listen", &listen())
            .with("ops.listen", &listen())
    };
    let database = setup.folder().join("otpost.db");
    let second = ports(Setup::bare().with("store.url", &format!("sqlite:{}", database.display())))
        .with("mail.transport", "mailbox");
    let in_use = second.run(&["serve"]).await;
    assert!(said(&in_use).contains("in use"), "{}", said(&in_use));
    process.kill().await;
    std::fs::remove_file(setup.folder().join("otpost.db.keys")).unwrap();
    let keyless = second.run(&["serve"]).await;
    assert_eq!(keyless.status.code(), Some(1));
    assert!(
        said(&keyless).contains("otpost.db.keys"),
        "{}",
        said(&keyless)
    );
}

#[tokio::test]
async fn wrong_templates_are_found_by_config_check_and_before_anything_is_made() {
    let setup = Setup::mailing_to("smtp://127.0.0.1").with("mail.templates", "nowhere");
    for arguments in [&["serve"][..], &["config", "check"]] {
        let output = setup.run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            said(&output).contains("mail.templates"),
            "{}",
            said(&output)
        );
    }
    assert!(
        !setup.folder().join("otpost.db.keys").exists(),
        "nothing was made"
    );
}

#[tokio::test]
async fn the_settings_of_one_role_are_checked_for_that_role() {
    let setup = Setup::bare().on_redis("redis://127.0.0.1");
    let all = setup.run(&["config", "check"]).await;
    assert!(said(&all).contains("mail.from"), "{}", said(&all));
    let api = setup.run(&["config", "check", "--role", "api"]).await;
    assert!(api.status.success(), "{}", said(&api));
}

#[tokio::test]
async fn healthcheck_needs_no_setting_but_the_listener() {
    let mut setup = Setup::bare();
    let process = setup.start().await;
    let asking = Setup::bare()
        .on_redis("redis://127.0.0.1")
        .with("otp.digits", "99")
        .with("ops.listen", &process.ops().to_string());
    let answer = asking.run(&["healthcheck"]).await;
    assert!(answer.status.success(), "{}", said(&answer));
    let wrong = Setup::bare()
        .with("ops.listen", "nonsense")
        .run(&["healthcheck"])
        .await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains("ops.listen"), "{}", said(&wrong));
}

#[tokio::test]
async fn a_start_that_waits_for_redis_can_be_stopped() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let setup = Setup::mailing_to("smtp://127.0.0.1").on_redis(&url);
    let mut child = setup.spawn(&["serve"]);
    let (_connection, _) = silent.accept().await.unwrap();
    let status = terminate(&mut child).await;
    assert!(status.success(), "{status}");
}
