//! Ways out for a mail. A transport says what became of it, and nothing else.

pub mod smtp;

use async_trait::async_trait;

use super::Message;
use super::error::MailError;

/// Hands mails to the next server.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Hands one mail over. `Ok` means that the next server has taken the responsibility.
    ///
    /// The future may be dropped at any time; what was sent until then is unknown.
    async fn send(&self, message: &Message) -> Result<(), MailError>;
}
