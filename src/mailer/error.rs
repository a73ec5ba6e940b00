//! Why a mail did not go out, and what that means for its job.
//!
//! Servers like to quote the address in their replies, so nothing of a reply is kept but its two
//! codes: no error of the mailer can carry an address or a code into a log.

use std::fmt;
use std::io;

/// What became of a mail that was not simply accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// The recipient or the content is not wanted: no retry helps.
    #[error("the mail was refused: {0}")]
    Refused(Failure),
    /// The mail was not accepted, and another attempt can help.
    #[error("the mail was not accepted: {0}")]
    Unavailable(Failure),
    /// The connection ended, or time did, from the message on: it may be on its way.
    #[error("it is unknown whether the mail was accepted: {0}")]
    Unconfirmed(Failure),
}

/// Where and how a dialogue with a mail server failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How far the dialogue had come.
    pub step: Step,
    /// What went wrong there.
    pub cause: Cause,
}

/// The steps of a dialogue, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Writing the message.
    Compose,
    /// Waiting for one of the bounded connections.
    Turn,
    /// Reaching the server: TCP, implicit TLS, greeting and EHLO.
    Connect,
    /// STARTTLS, the handshake and the second EHLO.
    StartTls,
    /// AUTH.
    Login,
    /// RSET after a mail that was not accepted.
    Reset,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA.
    Data,
    /// The message with its final dot, and the server's answer to it.
    FinalDot,
}

/// What can go wrong at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server said no.
    Reply(Reply),
    /// The connection failed or ended.
    Network(io::ErrorKind),
    /// The server's TLS is not to be trusted, or it speaks none; the text names no address.
    Tls(String),
    /// The server does not offer what is required.
    NotOffered,
    /// The server takes no recipients beyond ASCII (RFC 6531).
    NoSmtputf8,
    /// The server's answer makes no sense here.
    Protocol,
    /// The step's deadline, or the whole mail's, passed.
    Deadline,
}

/// A reply code and, if there is one, its enhanced status code (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Class, subject and detail, such as 5.1.1.
    pub status: Option<(u8, u16, u16)>,
}

impl Reply {
    /// Reads the code and the first line of a reply; what does not look like an enhanced status
    /// code of the same class is ignored.
    pub fn new(code: u16, text: &str) -> Self {
        let status = text
            .split_ascii_whitespace()
            .next()
            .and_then(read_status)
            .filter(|(class, _, _)| u16::from(*class) == code / 100);
        Self { code, status }
    }

    /// The server says that it is about to close the connection.
    pub fn is_farewell(self) -> bool {
        self.code == 421
    }

    /// It will say the same next time.
    fn is_permanent(self) -> bool {
        self.code / 100 == 5
    }

    /// The fault lies between us and the server: a policy (X.7.Z) or a login that is wanted
    /// (RFC 4954), not the recipient or the content.
    fn is_about_us(self) -> bool {
        matches!(self.code, 530 | 534 | 535 | 538)
            || self.status.is_some_and(|(_, subject, _)| subject == 7)
    }
}

impl Failure {
    /// What the failure means for the mail.
    pub fn verdict(self) -> MailError {
        match &self.cause {
            Cause::Reply(reply)
                if self.step >= Step::Recipient && reply.is_permanent() && !reply.is_about_us() =>
            {
                MailError::Refused(self)
            }
            Cause::NoSmtputf8 => MailError::Refused(self),
            Cause::Reply(_) => MailError::Unavailable(self),
            _ if self.step == Step::FinalDot => MailError::Unconfirmed(self),
            _ => MailError::Unavailable(self),
        }
    }
}

impl MailError {
    /// Where and how it failed.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Refused(failure) | Self::Unavailable(failure) | Self::Unconfirmed(failure) => {
                failure
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.step, self.cause)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Compose => "message",
            Self::Turn => "waiting for a free connection",
            Self::Connect => "connecting",
            Self::StartTls => "STARTTLS",
            Self::Login => "AUTH",
            Self::Reset => "RSET",
            Self::Sender => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Data => "DATA",
            Self::FinalDot => "final dot",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => reply.fmt(formatter),
            Self::Network(kind) => kind.fmt(formatter),
            Self::Tls(reason) => write!(formatter, "TLS failed ({reason})"),
            Self::NotOffered => formatter.write_str("the server does not offer it"),
            Self::NoSmtputf8 => {
                formatter.write_str("the server does not offer SMTPUTF8, which the address needs")
            }
            Self::Protocol => formatter.write_str("the server's answer makes no sense"),
            Self::Deadline => formatter.write_str("the deadline passed"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the server answered {}", self.code)?;
        if let Some((class, subject, detail)) = self.status {
            write!(formatter, " {class}.{subject}.{detail}")?;
        }
        Ok(())
    }
}

/// Reads `5.1.1`: one digit, then twice up to three.
fn read_status(word: &str) -> Option<(u8, u16, u16)> {
    let is_number = |part: &&str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut parts = word.split('.');
    let class = parts.next().filter(|part| part.len() == 1)?;
    let subject = parts.next().filter(is_number)?;
    let detail = parts.next().filter(is_number)?;
    if parts.next().is_some() {
        return None;
    }
    Some((
        class.parse().ok()?,
        subject.parse().ok()?,
        detail.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_reply_only_the_two_codes_are_kept() {
        let reply = Reply::new(550, "5.1.1 <ada@example.org>: Recipient address rejected");
        let failure = Failure {
            step: Step::Recipient,
            cause: Cause::Reply(reply),
        };
        assert_eq!(
            failure.verdict().to_string(),
            "the mail was refused: RCPT TO: the server answered 550 5.1.1"
        );
    }

    #[test]
    fn only_a_status_of_the_same_class_counts() {
        for (code, text, status) in [
            (550, "5.1.1 no", Some((5, 1, 1))),
            (550, "5.1.1", Some((5, 1, 1))),
            (451, "4.7.650 later", Some((4, 7, 650))),
            (550, "4.7.1 confused", None),
            (550, "no such user 5.1.1", None),
            (550, "5.1", None),
            (550, "5.1.1.1 no", None),
            (550, "5.1.1234 no", None),
            (550, "5.+1.1 no", None),
            (550, "192.0.2.1 is listed", None),
            (550, "", None),
        ] {
            assert_eq!(Reply::new(code, text).status, status, "{code} {text}");
        }
    }
}
