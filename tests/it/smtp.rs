//! The mailer against a real SMTP dialogue.

mod connections;
mod form;
mod internationalized;
mod replies;
mod security;
mod templates;

use std::sync::Arc;
use std::time::Duration;

use otpost::config::Sender;
use otpost::mailer::error::MailError;

use otpost::mailer::template::Templates;
use otpost::mailer::transport::smtp::{Deadlines, Security, Settings, Smtp};
use otpost::mailer::{Letterhead, Mailer, MessageId, OtpMail};
use otpost::otp::address::EmailAddress;
use otpost::otp::code::{Code, Nonce};
use otpost::otp::keys::KeyRing;

use crate::support::clock::ManualClock;
use crate::support::smtp_server::SmtpServer;

const CODE: &str = "918273";

/// A deadline that passes while a test waits for it.
const SOON: Duration = Duration::from_millis(300);
/// A deadline that does not, however slow the machine is.
const LATE: Duration = Duration::from_secs(60);

fn patient() -> Deadlines {
    Deadlines {
        connect: LATE,
        command: LATE,
        final_dot: LATE,
        whole: LATE,
    }
}

/// Settings for a plain dialogue with the server.
fn plain(server: &SmtpServer) -> Settings {
    Settings {
        deadlines: patient(),
        ..Settings::new(
            Security::PlainLoopback,
            "127.0.0.1",
            server.port(),
            "example.com",
        )
    }
}

fn letterhead(product: &str) -> Letterhead {
    Letterhead {
        sender: Sender::parse("Example <codes@example.com>").expect("a sender"),
        product: product.to_owned(),
        code_in_subject: false,
    }
}

fn mailer_with(settings: Settings, templates: Templates, letterhead: Letterhead) -> Mailer {
    let transport = Arc::new(Smtp::new(settings).expect("settings"));
    Mailer::new(
        templates,
        letterhead,
        transport,
        Arc::new(ManualClock::new()),
    )
}

fn mailer(settings: Settings) -> Mailer {
    mailer_with(
        settings,
        Templates::load(None).expect("the templates"),
        letterhead("otpost"),
    )
}

/// The mail of a job.
fn job(id: &str) -> OtpMail {
    let keys = KeyRing::new(&[7; 32], &[], &[9; 32]);
    OtpMail {
        to: EmailAddress::parse("ada@example.org").expect("an address"),
        code: Code::parse(CODE, &[6]).expect("a code"),
        valid_for: Duration::from_secs(10 * 60 + 59),
        locale: None,
        message_id: MessageId::new(&keys, id, Nonce([1; 16])),
        until: tokio::time::Instant::now() + LATE,
    }
}

fn class(outcome: &Result<(), MailError>) -> &'static str {
    match outcome {
        Ok(()) => "accepted",
        Err(MailError::Refused(_)) => "refused",
        Err(MailError::Unavailable(_)) => "unavailable",
        Err(MailError::Unconfirmed(_)) => "unconfirmed",
    }
}
