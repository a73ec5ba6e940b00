//! The mailer: renders the three templates of this folder and hands the mail to a transport.
//!
//! The only module that knows Handlebars and lettre. It promises that no value from outside can
//! add a header, a recipient or a line to a mail, and that none of its errors tells an address or
//! a code.

pub mod error;
pub mod mailbox;
pub mod mime;
pub mod template;
pub mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Sender;
use crate::otp::address::EmailAddress;
use crate::otp::clock::{Clock, UnixMillis};
use crate::otp::code::{Code, Nonce};
use crate::otp::keys::KeyRing;

pub use self::error::MailError;
use self::error::{Cause, Failure, Step};
use self::template::{Facts, TemplateError, Templates};
use self::transport::Transport;

/// A code on its way to its owner.
#[derive(Clone, Debug)]
pub struct OtpMail {
    /// Where it goes.
    pub to: EmailAddress,
    /// The code.
    pub code: Code,
    /// How long it is good from now on.
    pub valid_for: Duration,
    /// The language that the reader asked for (BCP 47).
    pub locale: Option<String>,
    /// By which the same code of the same job is known again.
    pub message_id: MessageId,
    /// By when its end must be known; what is not accepted then was not accepted in time.
    pub until: Instant,
}

/// The part of a Message-ID before the `@`; the same for every attempt of one job at one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageId(String);

impl MessageId {
    /// Base32 of `HMAC-SHA-256(K_msg, job id || nonce)`, 128 bits, in lower case.
    pub fn new(keys: &KeyRing, job_id: &str, nonce: Nonce) -> Self {
        let name = keys.message(&[job_id.as_bytes(), &nonce.0]);
        Self(
            data_encoding::BASE32_NOPAD
                .encode(&name)
                .to_ascii_lowercase(),
        )
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What all mails have in common.
#[derive(Clone, Debug)]
pub struct Letterhead {
    /// The From of every mail; its domain ends every Message-ID.
    pub sender: Sender,
    /// What the codes are for, by the name that people know.
    pub product: String,
    /// Whether the code may stand in the subject.
    pub code_in_subject: bool,
}

/// A mail as a transport gets it.
#[derive(Clone)]
pub struct Message {
    /// Whom it is from.
    pub from: Sender,
    /// Whom it is for; nobody else gets it.
    pub to: EmailAddress,
    /// What the reader sees first: one line.
    pub subject: String,
    /// The plain part.
    pub text: String,
    /// The HTML part.
    pub html: String,
    /// When it was written.
    pub date: UnixMillis,
    /// `id@domain`, without angle brackets.
    pub message_id: String,
    /// By when its end must be known.
    pub until: Instant,
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Message({:?}, {})", self.to, self.message_id)
    }
}

/// Writes mails and sends them.
pub struct Mailer {
    templates: Templates,
    letterhead: Letterhead,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
}

impl Mailer {
    /// A mailer in front of a transport.
    pub fn new(
        templates: Templates,
        letterhead: Letterhead,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let product = template::one_line(&letterhead.product);
        Self {
            templates,
            letterhead: Letterhead {
                product,
                ..letterhead
            },
            transport,
            clock,
        }
    }

    /// Writes a mail and hands it over; `Ok` means that the next server has it.
    pub async fn send(&self, mail: &OtpMail) -> Result<(), MailError> {
        let message = self.compose(mail).map_err(|_its_text_may_quote_values| {
            MailError::Unavailable(Failure {
                step: Step::Compose,
                cause: Cause::Protocol,
            })
        })?;
        self.transport.send(&message).await
    }

    /// Writes a mail.
    pub fn compose(&self, mail: &OtpMail) -> Result<Message, TemplateError> {
        let rendered = self.templates.render(&Facts {
            code: mail.code.reveal(),
            product: &self.letterhead.product,
            minutes: mail.valid_for.as_secs() / 60,
            locale: mail.locale.as_deref().filter(|tag| is_language_tag(tag)),
            code_in_subject: self.letterhead.code_in_subject,
        })?;
        Ok(Message {
            from: self.letterhead.sender.clone(),
            to: mail.to.clone(),
            subject: rendered.subject,
            text: rendered.text,
            html: rendered.html,
            date: self.clock.now(),
            message_id: format!("{}@{}", mail.message_id, self.letterhead.sender.domain()),
            until: mail.until,
        })
    }
}

/// Jobs come from anybody who can write to the queue: what is no language tag is left out.
fn is_language_tag(text: &str) -> bool {
    text.len() <= 35
        && text.split('-').all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(job: &str, nonce: u8) -> String {
        let keys = KeyRing::new(&[7; 32], &[], &[9; 32]);
        MessageId::new(&keys, job, Nonce([nonce; 16])).to_string()
    }

    #[test]
    fn a_message_id_is_the_same_for_one_job_and_code_only() {
        assert_eq!(id("j1", 1), id("j1", 1));
        assert_ne!(id("j1", 1), id("j2", 1));
        assert_ne!(id("j1", 1), id("j1", 2));
    }

    #[test]
    fn a_message_id_is_26_lower_case_characters() {
        let id = id("j1", 1);
        assert_eq!(id.len(), 26);
        assert!(
            id.bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
        );
    }

    #[test]
    fn only_language_tags_are_taken_for_a_locale() {
        for tag in ["en", "de-CH", "zh-Hant-TW", "es-419"] {
            assert!(is_language_tag(tag), "{tag}");
        }
        for other in [
            "",
            "-",
            "en-",
            "en_US",
            "en US",
            "en\r\nBcc: x",
            "é",
            "abcdefghi",
        ] {
            assert!(!is_language_tag(other), "{other:?}");
        }
    }
}
