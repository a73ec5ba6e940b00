//! Connections: bounded, used again, never after a dialogue that was cut short.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use otpost::mailer::error::{Cause, Step};
use otpost::mailer::transport::Transport;
use otpost::mailer::transport::smtp::{Deadlines, Settings, Smtp};
use tokio_util::sync::CancellationToken;

use super::{LATE, SOON, class, job, mailer, patient, plain};
use crate::support::smtp_server::{Act, SmtpServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_mails_at_once_never_open_more_than_the_allowed_connections() {
    let server = SmtpServer::start().await;
    let mailer = mailer(Settings {
        connections: 5,
        ..plain(&server)
    });
    let jobs: Vec<_> = (0..1_000)
        .map(|number| job(&format!("j{number}")))
        .collect();
    for outcome in join_all(jobs.iter().map(|mail| mailer.send(mail))).await {
        outcome.unwrap();
    }
    let mut ids = std::collections::HashSet::new();
    for _ in 0..1_000 {
        ids.insert(server.next_mail().await.header("Message-ID"));
    }
    assert_eq!(ids.len(), 1_000);
    let record = server.record();
    assert_eq!(record.most_open, 5, "{} connections", record.connections);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = SmtpServer::start().await;
    let mailer = mailer(plain(&server));
    for number in 0..3 {
        mailer.send(&job(&format!("j{number}"))).await.unwrap();
    }
    assert_eq!(server.record().connections, 1);
    assert_eq!(server.count("EHLO"), 1);
}

#[tokio::test]
async fn a_connection_carries_its_most_mails_and_no_more() {
    let server = SmtpServer::start().await;
    let mailer = mailer(Settings {
        mails_per_connection: 2,
        ..plain(&server)
    });
    for number in 0..5 {
        mailer.send(&job(&format!("j{number}"))).await.unwrap();
    }
    let record = server.record();
    assert_eq!((record.connections, record.most_open), (3, 1));
    assert_eq!(server.count("QUIT"), 2);
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_replaced() {
    let server = SmtpServer::start().await;
    let mailer = mailer(plain(&server));
    mailer.send(&job("j1")).await.unwrap();
    server.hang_up().await;
    mailer.send(&job("j2")).await.unwrap();
    assert_eq!(server.record().connections, 2);
}

#[tokio::test]
async fn an_idle_connection_that_the_server_ends_with_421_is_replaced() {
    let server = SmtpServer::start().await;
    let mailer = mailer(plain(&server));
    mailer.send(&job("j1")).await.unwrap();
    server.once("MAIL", Act::ReplyAndDrop("421 4.4.2 idle for too long"));
    mailer.send(&job("j2")).await.unwrap();
    assert_eq!(server.record().connections, 2);
}

#[tokio::test]
async fn a_fresh_connection_that_ends_with_421_is_not_tried_again() {
    let server = SmtpServer::start().await;
    server.once("MAIL", Act::ReplyAndDrop("421 4.3.2 closing"));
    let mailer = mailer(plain(&server));
    assert_eq!(class(&mailer.send(&job("j1")).await), "unavailable");
    assert_eq!(server.record().connections, 1);
}

/// Only a connection that dies at MAIL was idle for too long: past that, trying again is the
/// queue's decision.
#[tokio::test]
async fn a_connection_that_dies_after_mail_from_is_not_replaced() {
    let server = SmtpServer::start().await;
    let mailer = mailer(plain(&server));
    mailer.send(&job("j1")).await.unwrap();
    server.once("RCPT", Act::Drop);
    assert_eq!(class(&mailer.send(&job("j2")).await), "unavailable");
    assert_eq!(server.record().connections, 1);
}

#[tokio::test]
async fn a_refused_mail_is_forgotten_before_the_next_one() {
    let server = SmtpServer::start().await;
    let mailer = mailer(plain(&server));
    server.once("RCPT", Act::Reply("550 5.1.1 unknown"));
    assert_eq!(class(&mailer.send(&job("j1")).await), "refused");
    mailer.send(&job("j2")).await.unwrap();
    assert_eq!(server.record().connections, 1);
    assert_eq!(server.count("RSET"), 1);
    assert_eq!(server.next_mail().await.to, ["ada@example.org"]);
}

/// The queue drops an attempt at its deadline, wherever the dialogue is.
#[tokio::test]
async fn a_mail_that_is_dropped_midway_spoils_no_other() {
    for step in ["MAIL", "RCPT", "DATA", "."] {
        let server = SmtpServer::start().await;
        let mailer = mailer(Settings {
            connections: 1,
            ..plain(&server)
        });
        mailer.send(&job("j0")).await.unwrap();
        server.next_mail().await;
        let seen = server.count(step);
        server.once(step, Act::Stall);
        let dropped = job("j1");
        tokio::select! {
            _ = mailer.send(&dropped) => panic!("{step} stalls"),
            () = server.until(|record| {
                record.commands.iter().filter(|line| line.starts_with(step)).count() > seen
            }) => {}
        }
        server.relent();
        mailer.send(&job("j2")).await.unwrap();
        if step == "." {
            server.next_mail().await;
        }
        let last = server.next_mail().await;
        let expected = mailer.compose(&job("j2")).unwrap().message_id;
        assert_eq!(last.header("Message-ID"), format!("<{expected}>"), "{step}");
        assert_eq!(server.record().connections, 2, "{step}");
    }
}

#[tokio::test]
async fn waiting_for_a_connection_counts_against_the_deadline() {
    let server = SmtpServer::start().await;
    let mailer = mailer(Settings {
        connections: 1,
        deadlines: Deadlines {
            whole: SOON,
            ..patient()
        },
        ..plain(&server)
    });
    let (first, second) = (job("j1"), job("j2"));
    // It has the only turn now, and nobody polls it again.
    let mut first = std::pin::pin!(mailer.send(&first));
    assert!(futures::poll!(&mut first).is_pending());
    let error = mailer.send(&second).await.unwrap_err();
    assert_eq!(error.failure().step, Step::Turn);
    assert_eq!(error.failure().cause, Cause::Deadline);
    assert_eq!(class(&Err(error)), "unavailable");
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while() {
    let server = SmtpServer::start().await;
    let transport = smtp(Settings {
        idle: Duration::from_millis(1),
        ..plain(&server)
    });
    transport.send(&message()).await.unwrap();
    let never = CancellationToken::new();
    tokio::select! {
        () = transport.keep_tidy(&never) => panic!("nobody stopped it"),
        () = server.until(|record| record.open == 0) => {}
    }
    assert_eq!(server.count("QUIT"), 1);
}

#[tokio::test]
async fn the_stop_closes_idle_connections() {
    let server = SmtpServer::start().await;
    let transport = smtp(Settings {
        idle: LATE,
        ..plain(&server)
    });
    transport.send(&message()).await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    transport.keep_tidy(&stop).await;
    assert_eq!(server.record().open, 0);
    assert_eq!(server.count("QUIT"), 1);
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_not_used() {
    let server = SmtpServer::start().await;
    let mailer = mailer(Settings {
        idle: Duration::ZERO,
        ..plain(&server)
    });
    mailer.send(&job("j1")).await.unwrap();
    mailer.send(&job("j2")).await.unwrap();
    let record = server.record();
    assert_eq!((record.connections, record.most_open), (2, 1));
}

fn smtp(settings: Settings) -> Arc<Smtp> {
    Arc::new(Smtp::new(settings).expect("settings"))
}

fn message() -> otpost::mailer::Message {
    let settings = Settings::new(
        otpost::mailer::transport::smtp::Security::PlainLoopback,
        "127.0.0.1",
        25,
        "example.com",
    );
    mailer(settings).compose(&job("j1")).expect("a message")
}
