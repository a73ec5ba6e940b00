//! The development mailbox: keeps the last mails in memory instead of sending them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::Serialize;

use super::Message;
use super::error::MailError;
use super::transport::Transport;
use crate::otp::clock::Clock;

/// How many mails it keeps.
const CAPACITY: usize = 100;

/// A mail as the mailbox shows it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct StoredMail {
    /// Counts the mails of this process.
    pub id: String,
    /// Whom it was for.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The plain part.
    pub text: String,
    /// The HTML part.
    pub html: String,
    /// When it came, as RFC 3339 in UTC.
    pub received: String,
}

/// A transport that delivers to nobody.
pub struct Mailbox {
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    count: u64,
    mails: VecDeque<StoredMail>,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            kept: Mutex::default(),
        }
    }

    /// The last mails, newest first.
    pub fn messages(&self) -> Vec<StoredMail> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.mails.iter().cloned().collect()
    }
}

#[async_trait]
impl Transport for Mailbox {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        let received = self.clock.now().rfc3339();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count += 1;
        let id = kept.count.to_string();
        kept.mails.push_front(StoredMail {
            id,
            to: message.to.recipient(),
            subject: message.subject.clone(),
            text: message.text.clone(),
            html: message.html.clone(),
            received,
        });
        kept.mails.truncate(CAPACITY);
        Ok(())
    }
}
