//! The development mailbox: keeps the last mails in memory instead of sending them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::Serialize;

use super::Message;
use super::error::MailError;
use super::transport::Transport;
use crate::otp::clock::{Clock, UnixMillis};

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
        let received = rfc3339(self.clock.now());
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

    async fn check(&self) -> Result<(), MailError> {
        Ok(())
    }
}

/// `2026-09-21T14:13:20.000Z`.
fn rfc3339(instant: UnixMillis) -> String {
    let seconds = instant.0 / 1_000;
    let (year, month, day) = date_of(seconds / 86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        instant.0 % 1_000
    )
}

/// The date of a day counted from 1970-01-01.
fn date_of(mut day: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    let february = days_of_year(year) - 337;
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    (year, month + 1, day + 1)
}

fn days_of_year(year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if is_leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_790_000_000_123, "2026-09-21T14:13:20.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UnixMillis(millis)), text);
        }
    }
}
