//! Encryption and login: nothing goes out in clear, nothing to a server that cannot prove itself.

use otpost::mailer::error::{Cause, Step};
use otpost::mailer::transport::smtp::{Credentials, Security, Settings, SettingsError, Smtp};
use rstest::rstest;

use super::{class, job, mailer, patient, plain};
use crate::support::smtp_server::{Act, Certificate, Options, Protection, SmtpServer};

const LOGIN: (&str, &str) = ("ada", "pass word");

async fn server(protection: Protection, certificate: Certificate) -> SmtpServer {
    SmtpServer::start_with(Options {
        protection,
        certificate,
        login: Some(LOGIN),
        ..Options::default()
    })
    .await
}

fn secure(server: &SmtpServer, security: Security) -> Settings {
    Settings {
        deadlines: patient(),
        ca_file: Some(server.ca_file()),
        credentials: Some(credentials(LOGIN.1)),
        ..Settings::new(security, "localhost", server.port(), "example.com")
    }
}

fn credentials(password: &str) -> Credentials {
    Credentials {
        user: LOGIN.0.to_owned(),
        password: password.into(),
    }
}

#[rstest]
#[case(Protection::StartTls, Security::StartTls)]
#[case(Protection::Implicit, Security::Implicit)]
#[tokio::test]
async fn a_private_authority_is_accepted(
    #[case] protection: Protection,
    #[case] security: Security,
) {
    let server = server(protection, Certificate::Right).await;
    let mailer = mailer(secure(&server, security));
    mailer.send(&job("j1")).await.unwrap();
    assert_eq!(server.next_mail().await.to, ["ada@example.org"]);
}

#[rstest]
#[case(Protection::StartTls, Security::StartTls)]
#[case(Protection::Implicit, Security::Implicit)]
#[tokio::test]
async fn a_server_that_cannot_prove_itself_gets_neither_login_nor_mail(
    #[case] protection: Protection,
    #[case] security: Security,
    #[values("wrong name", "self-signed", "unknown authority")] fault: &str,
) {
    let certificate = match fault {
        "wrong name" => Certificate::WrongName,
        "self-signed" => Certificate::SelfSigned,
        _ => Certificate::Right,
    };
    let server = server(protection, certificate).await;
    let mut settings = secure(&server, security);
    if fault == "unknown authority" {
        settings.ca_file = None;
    }
    let error = mailer(settings).send(&job("j1")).await.unwrap_err();
    assert!(
        matches!(error.failure().cause, Cause::Tls(_)),
        "{error:?} should be about TLS"
    );
    assert_eq!(class(&Err(error)), "unavailable");
    assert_eq!(server.count("AUTH") + server.count("MAIL"), 0);
}

#[tokio::test]
async fn the_system_is_not_trusted_beside_a_private_authority() {
    let server = server(Protection::Implicit, Certificate::Right).await;
    let other = self::server(Protection::Implicit, Certificate::Right).await;
    let settings = Settings {
        ca_file: Some(other.ca_file()),
        ..secure(&server, Security::Implicit)
    };
    assert_eq!(
        class(&mailer(settings).send(&job("j1")).await),
        "unavailable"
    );
}

#[tokio::test]
async fn without_starttls_nothing_is_said() {
    let server = SmtpServer::start_with(Options {
        login: Some(LOGIN),
        ..Options::default()
    })
    .await;
    let mailer = mailer(Settings {
        ca_file: None,
        ..secure(&server, Security::StartTls)
    });
    let error = mailer.send(&job("j1")).await.unwrap_err();
    assert_eq!(error.failure().step, Step::StartTls);
    assert_eq!(error.failure().cause, Cause::NotOffered);
    assert_eq!(class(&Err(error)), "unavailable");
    server.until(|record| record.open == 0).await;
    assert_eq!(server.record().commands, ["EHLO example.com"]);
    assert!(server.mail_so_far().await.is_none());
}

#[tokio::test]
async fn a_server_that_takes_starttls_back_gets_nothing() {
    let server = server(Protection::StartTls, Certificate::Right).await;
    server.always("STARTTLS", Act::Reply("454 4.7.0 not now"));
    let mailer = mailer(secure(&server, Security::StartTls));
    assert_eq!(class(&mailer.send(&job("j1")).await), "unavailable");
    assert_eq!(server.count("AUTH") + server.count("MAIL"), 0);
}

/// Words that somebody on the network appended to the clear answer must not pass for words that
/// the server said under TLS.
#[tokio::test]
async fn words_injected_before_tls_are_not_taken_for_the_servers() {
    let server = server(Protection::StartTls, Certificate::Right).await;
    server.always(
        "STARTTLS",
        Act::Reply("220 go on\r\n250-evil.example\r\n250 AUTH PLAIN"),
    );
    let mailer = mailer(secure(&server, Security::StartTls));
    let error = mailer.send(&job("j1")).await.unwrap_err();
    assert_eq!(error.failure().step, Step::StartTls);
    assert!(matches!(error.failure().cause, Cause::Tls(_)), "{error:?}");
}

#[rstest]
#[case("PLAIN")]
#[case("LOGIN")]
#[case("CRAM-MD5 PLAIN LOGIN")]
#[tokio::test]
async fn login_comes_after_starttls(#[case] mechanisms: &'static str) {
    let server = SmtpServer::start_with(Options {
        protection: Protection::StartTls,
        login: Some(LOGIN),
        mechanisms,
        ..Options::default()
    })
    .await;
    let mailer = mailer(secure(&server, Security::StartTls));
    mailer.send(&job("j1")).await.unwrap();
    let commands = server.record().commands;
    let place = |verb: &str| {
        commands
            .iter()
            .position(|command| command.starts_with(verb))
            .unwrap_or_else(|| panic!("{verb} in {commands:?}"))
    };
    assert!(place("STARTTLS") < place("AUTH"), "{commands:?}");
    assert!(place("AUTH") < place("MAIL"), "{commands:?}");
}

#[tokio::test]
async fn login_works_in_clear_on_the_loopback_address() {
    let server = SmtpServer::start_with(Options {
        login: Some(LOGIN),
        ..Options::default()
    })
    .await;
    let mailer = mailer(Settings {
        credentials: Some(credentials(LOGIN.1)),
        ..plain(&server)
    });
    mailer.send(&job("j1")).await.unwrap();
}

#[rstest]
#[case("PLAIN", "wrong password")]
#[case("CRAM-MD5", "pass word")]
#[tokio::test]
async fn a_login_that_fails_is_the_servers_affair(
    #[case] mechanisms: &'static str,
    #[case] password: &str,
) {
    let server = SmtpServer::start_with(Options {
        login: Some(LOGIN),
        mechanisms,
        ..Options::default()
    })
    .await;
    let mailer = mailer(Settings {
        credentials: Some(credentials(password)),
        ..plain(&server)
    });
    let error = mailer.send(&job("j1")).await.unwrap_err();
    assert_eq!(error.failure().step, Step::Login);
    assert_eq!(class(&Err(error)), "unavailable");
    assert_eq!(server.count("MAIL"), 0);
}

#[rstest]
#[case("mail.example.com", false)]
#[case("192.0.2.1", false)]
#[case("0.0.0.0", false)]
#[case("::", false)]
#[case("localhost.example.com", false)]
#[case("127.0.0.1.example.com", false)]
#[case("localhost", true)]
#[case("LOCALHOST", true)]
#[case("127.0.0.1", true)]
#[case("127.1.2.3", true)]
#[case("::1", true)]
fn plain_smtp_goes_to_the_loopback_address_only(#[case] host: &str, #[case] is_accepted: bool) {
    let settings = Settings::new(Security::PlainLoopback, host, 25, "example.com");
    match Smtp::new(settings) {
        Ok(_) => assert!(is_accepted, "{host}"),
        Err(SettingsError::NotLoopback) => assert!(!is_accepted, "{host}"),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    for content in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAAAA")] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let settings = Settings {
            ca_file: Some(path.clone()),
            ..Settings::new(Security::Implicit, "localhost", 465, "example.com")
        };
        let refusal = Smtp::new(settings).err().expect("refused").to_string();
        assert!(refusal.contains("ca.pem"), "{content:?}: {refusal}");
    }
}

#[tokio::test]
async fn no_connection_at_all_is_refused() {
    let settings = Settings {
        connections: 0,
        ..Settings::new(Security::Implicit, "localhost", 465, "example.com")
    };
    assert!(matches!(
        Smtp::new(settings),
        Err(SettingsError::NoConnections)
    ));
}
