//! Recipients beyond ASCII: announced to servers that take them, refused for those that do not.

use otpost::mailer::OtpMail;
use otpost::mailer::error::{Cause, Step};
use otpost::otp::address::EmailAddress;

use super::form::assert_form;
use super::{class, job, mailer, plain};
use crate::support::smtp_server::{Options, SmtpServer};

fn mail_to(text: &str) -> OtpMail {
    OtpMail {
        to: EmailAddress::parse_internationalized(text).unwrap(),
        ..job("j1")
    }
}

async fn wide_server() -> SmtpServer {
    SmtpServer::start_with(Options {
        smtputf8: true,
        ..Options::default()
    })
    .await
}

fn senders(server: &SmtpServer) -> Vec<String> {
    let commands = server.record().commands;
    let is_sender = |command: &String| command.starts_with("MAIL");
    commands.into_iter().filter(is_sender).collect()
}

#[tokio::test]
async fn smtputf8_is_announced_for_recipients_that_need_it_and_for_no_others() {
    let server = wide_server().await;
    let mailer = mailer(plain(&server));
    mailer.send(&mail_to("José@Bücher.example")).await.unwrap();
    let mail = server.next_mail().await;
    assert_form(&mail);
    assert_eq!(mail.to, ["José@xn--bcher-kva.example"]);
    assert_eq!(mail.header("To"), mail.to[0]);
    mailer.send(&job("j2")).await.unwrap();
    assert!(server.next_mail().await.data.is_ascii());
    assert_eq!(
        senders(&server),
        [
            "MAIL FROM:<codes@example.com> BODY=8BITMIME SMTPUTF8",
            "MAIL FROM:<codes@example.com>"
        ]
    );
}

#[tokio::test]
async fn a_server_without_smtputf8_ends_the_mail_and_not_the_connection() {
    let server = SmtpServer::start().await;
    let mailer = mailer(plain(&server));
    let outcome = mailer.send(&mail_to("josé@example.org")).await;
    assert_eq!(class(&outcome), "refused");
    let failure = outcome.unwrap_err().failure().clone();
    assert_eq!(failure.step, Step::Recipient);
    assert_eq!(failure.cause, Cause::NoSmtputf8);
    assert!(senders(&server).is_empty(), "nothing was said of the mail");
    mailer.send(&job("j2")).await.unwrap();
    assert_form(&server.next_mail().await);
    assert_eq!(server.record().connections, 1);
}

#[tokio::test]
async fn no_character_beyond_ascii_adds_a_header_a_recipient_or_a_line() {
    let server = wide_server().await;
    let mailer = mailer(plain(&server));
    for text in [
        "é\u{85}Bcc: eve@example.org",
        "é\u{2028}Bcc:eve@example.org",
        "é\u{2029}@example.org",
        "é\u{a0}@example.org",
        "é\r\nBcc: x@example.org",
        "é\0@example.org",
        "é>@example.org",
        "é,eve@example.org",
        "\u{560a}\u{560d}Bcc@example.org",
        "\u{ff0e}\u{ff20}eve@example.org",
        "\u{ff1e}é@example.org",
        "=?utf-8?q?é?=@example.org",
        "é%0d%0aBcc@example.org",
    ] {
        let Ok(to) = EmailAddress::parse_internationalized(text) else {
            continue;
        };
        mailer.send(&OtpMail { to, ..job("j1") }).await.unwrap();
        let mail = server.next_mail().await;
        assert_form(&mail);
        assert_eq!(mail.to, [text]);
    }
    assert!(server.count("MAIL") >= 3, "some are lawful local parts");
}
