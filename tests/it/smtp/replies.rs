//! What a server's answers mean for a mail.

use otpost::mailer::OtpMail;
use otpost::mailer::error::{Cause, Reply};
use rstest::rstest;
use tokio::time::Instant;

use super::{SOON, class, job, mailer, patient, plain};
use crate::support::smtp_server::{Act, SmtpServer};
use otpost::mailer::transport::smtp::{Deadlines, Settings};

#[rstest]
// The server at the door.
#[case("connect", "421 4.3.2 closing", "unavailable")]
#[case("connect", "554 5.7.1 your network is listed", "unavailable")]
#[case("connect", "554 no", "unavailable")]
#[case("connect", "250 not a greeting but not a no", "accepted")]
#[case("EHLO", "421 busy", "unavailable")]
#[case("EHLO", "504 5.5.2 need a full name", "unavailable")]
#[case("EHLO", "550 go away", "unavailable")]
// The sender is our own affair.
#[case("MAIL", "451 4.3.0 later", "unavailable")]
#[case("MAIL", "452 4.3.1 disk full", "unavailable")]
#[case("MAIL", "530 5.7.0 log in first", "unavailable")]
#[case("MAIL", "550 5.1.8 sender's domain unknown", "unavailable")]
#[case("MAIL", "553 5.7.1 sender not allowed", "unavailable")]
#[case("MAIL", "354 not an answer to MAIL", "unavailable")]
// The recipient.
#[case("RCPT", "251 2.1.5 will forward", "accepted")]
#[case("RCPT", "421 4.4.2 closing", "unavailable")]
#[case("RCPT", "450 4.7.1 greylisted", "unavailable")]
#[case("RCPT", "451 4.7.650 too fast", "unavailable")]
#[case("RCPT", "452 4.2.2 mailbox full", "unavailable")]
#[case("RCPT", "501 5.1.3 bad address", "refused")]
#[case("RCPT", "530 authentication required", "unavailable")]
#[case("RCPT", "550 5.1.1 <ada@example.org> unknown", "refused")]
#[case("RCPT", "550 no such user", "refused")]
#[case("RCPT", "550-5.1.1 no such\r\n550 5.1.1 user", "refused")]
#[case("RCPT", "550 5.7.1 relaying denied", "unavailable")]
#[case("RCPT", "550-5.7.26 unauthenticated\r\n550 5.7.26 mail", "unavailable")]
#[case("RCPT", "552 5.2.2 mailbox full for good", "refused")]
#[case("RCPT", "553 5.1.3 bad name", "refused")]
#[case("RCPT", "554 5.7.0 policy", "unavailable")]
#[case("RCPT", "556 5.1.10 takes no mail", "refused")]
// The content.
#[case("DATA", "451 4.3.0 later", "unavailable")]
#[case("DATA", "554 5.5.1 no valid recipients", "refused")]
#[case("DATA", "250 not an answer to DATA", "unavailable")]
#[case(".", "421 4.3.0 closing", "unavailable")]
#[case(".", "450 4.2.0 later", "unavailable")]
#[case(".", "451 4.7.1 greylisted", "unavailable")]
#[case(".", "550 5.7.1 looks like spam", "unavailable")]
#[case(".", "550 spam", "refused")]
#[case(".", "552 5.3.4 too large", "refused")]
#[case(".", "554 5.6.0 bad content", "refused")]
#[case(".", "354 not an answer to a mail", "unconfirmed")]
#[tokio::test]
async fn a_reply_decides_about_the_mail(
    #[case] step: &'static str,
    #[case] reply: &'static str,
    #[case] expected: &str,
) {
    let server = SmtpServer::start().await;
    server.always(step, Act::Reply(reply));
    let outcome = mailer(plain(&server)).send(&job("j1")).await;
    if let Err(error) = &outcome {
        let text = format!("{error} {error:?}");
        assert!(
            !text.contains("ada") && !text.contains("example.org"),
            "{text}"
        );
    }
    assert_eq!(class(&outcome), expected);
}

#[rstest]
#[case("connect", "unavailable")]
#[case("EHLO", "unavailable")]
#[case("MAIL", "unavailable")]
#[case("RCPT", "unavailable")]
#[case("DATA", "unavailable")]
#[case(".", "unconfirmed")]
#[tokio::test]
async fn a_lost_connection_is_unconfirmed_only_after_the_final_dot(
    #[case] step: &'static str,
    #[case] expected: &str,
) {
    let server = SmtpServer::start().await;
    server.always(step, Act::Drop);
    let outcome = mailer(plain(&server)).send(&job("j1")).await;
    assert_eq!(class(&outcome), expected);
}

/// Each step's own deadline ends it, and so does the deadline of the whole mail.
#[rstest]
#[case("connect", "unavailable", Deadlines { connect: SOON, ..patient() })]
#[case("EHLO", "unavailable", Deadlines { connect: SOON, ..patient() })]
#[case("MAIL", "unavailable", Deadlines { command: SOON, ..patient() })]
#[case("RCPT", "unavailable", Deadlines { command: SOON, ..patient() })]
#[case("DATA", "unavailable", Deadlines { command: SOON, ..patient() })]
#[case(".", "unconfirmed", Deadlines { final_dot: SOON, ..patient() })]
#[case("connect", "unavailable", Deadlines { whole: SOON, ..patient() })]
#[case("RCPT", "unavailable", Deadlines { whole: SOON, ..patient() })]
#[case("DATA", "unavailable", Deadlines { whole: SOON, ..patient() })]
#[tokio::test]
async fn a_server_that_stalls_is_left_at_the_deadline(
    #[case] step: &'static str,
    #[case] expected: &str,
    #[case] deadlines: Deadlines,
) {
    let server = SmtpServer::start().await;
    server.always(step, Act::Stall);
    let mailer = mailer(Settings {
        deadlines,
        ..plain(&server)
    });
    let error = mailer.send(&job("j1")).await.unwrap_err();
    assert_eq!(error.failure().cause, Cause::Deadline);
    assert_eq!(class(&Err(error)), expected);
    server.until(|record| record.open == 0).await;
}

#[rstest]
#[case("RCPT", "unavailable")]
#[case(".", "unconfirmed")]
#[tokio::test]
async fn a_mail_is_given_up_when_its_own_time_is_over(
    #[case] step: &'static str,
    #[case] expected: &str,
) {
    let server = SmtpServer::start().await;
    server.always(step, Act::Stall);
    let mail = OtpMail {
        until: Instant::now() + SOON,
        ..job("j1")
    };
    let outcome = mailer(plain(&server)).send(&mail).await;
    assert_eq!(class(&outcome), expected);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let server = SmtpServer::start().await;
    let settings = plain(&server);
    drop(server);
    assert_eq!(
        class(&mailer(settings).send(&job("j1")).await),
        "unavailable"
    );
}

#[tokio::test]
async fn a_mail_that_was_unconfirmed_goes_out_again_under_the_same_id() {
    let server = SmtpServer::start().await;
    server.once(".", Act::Drop);
    let mailer = mailer(plain(&server));
    assert_eq!(class(&mailer.send(&job("j1")).await), "unconfirmed");
    assert_eq!(class(&mailer.send(&job("j1")).await), "accepted");
    let (first, second) = (server.next_mail().await, server.next_mail().await);
    assert_eq!(first.header("Message-ID"), second.header("Message-ID"));
    assert_eq!(first.data, second.data);

    mailer.send(&job("j2")).await.unwrap();
    let other = server.next_mail().await;
    assert_ne!(first.header("Message-ID"), other.header("Message-ID"));
}

#[tokio::test]
async fn the_reason_names_both_codes_of_the_reply() {
    let server = SmtpServer::start().await;
    server.always("RCPT", Act::Reply("550 5.1.1 no ada@example.org here"));
    let error = mailer(plain(&server)).send(&job("j1")).await.unwrap_err();
    let reply = Reply {
        code: 550,
        status: Some((5, 1, 1)),
    };
    assert_eq!(error.failure().cause, Cause::Reply(reply));
    assert_eq!(
        error.to_string(),
        "the mail was refused: RCPT TO: the server answered 550 5.1.1"
    );
}
