//! A code that a person may type, and which of those that live a further job mails again.

use super::{Candidate, Issued};
use crate::otp::budget::Class;
use crate::otp::clock::UnixMillis;
use crate::otp::policy::{LIVE_CODES, RETRY_MARGIN};

/// One code that a person may type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCode {
    /// What it is derived from, what it is compared by, its key and its length.
    pub candidate: Candidate,
    /// When it was made.
    pub made_at: UnixMillis,
    /// When it ends; this never moves.
    pub expires_at: UnixMillis,
    /// The budget that its failures count in. Its length would not tell, since normal codes may
    /// have 8 digits, too.
    pub class: Class,
    /// The job that made it.
    pub job: String,
    /// When that job was requested.
    pub requested_at: UnixMillis,
}

impl LiveCode {
    fn is_retry_of(&self, job: &str, now: UnixMillis) -> bool {
        self.job == job && self.expires_at >= now.after(RETRY_MARGIN)
    }

    fn has_half_its_life(&self, now: UnixMillis) -> bool {
        self.expires_at.since(now) * 2 >= self.expires_at.since(self.made_at)
    }

    /// What is to be mailed.
    pub fn answer(&self, now: UnixMillis) -> Issued {
        Issued::Live {
            nonce: self.candidate.nonce,
            key_id: self.candidate.key_id,
            digits: self.candidate.digits,
            expires_at: self.expires_at,
            now,
        }
    }
}

/// The code that the same job made, while a minute of it is left; else a code that has at least half
/// of its life before it; else, with two alive, the one that lives longest.
pub fn code_to_keep<'a>(
    codes: impl Iterator<Item = &'a LiveCode> + Clone,
    now: UnixMillis,
    job: &str,
) -> Option<&'a LiveCode> {
    let own = codes.clone().find(|code| code.is_retry_of(job, now));
    let full = codes.clone().count() >= LIVE_CODES;
    let longest = codes.max_by_key(|code| code.expires_at);
    own.or_else(|| longest.filter(|code| full || code.has_half_its_life(now)))
}

/// The newest code, unless the job is newer, or made it and less than a minute of it is left.
pub fn code_not_to_rotate<'a>(
    codes: impl Iterator<Item = &'a LiveCode>,
    now: UnixMillis,
    job: &str,
    requested_at: UnixMillis,
) -> Option<&'a LiveCode> {
    let newest = codes.last()?;
    let is_newer = requested_at > newest.requested_at;
    let is_late_retry = newest.job == job && !newest.is_retry_of(job, now);
    (!is_newer && !is_late_retry).then_some(newest)
}
