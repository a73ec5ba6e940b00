//! A right code that is answered again: a client that lost the answer may ask for it once more, with
//! the same idempotency key.

use std::time::Duration;

use subtle::{Choice, ConstantTimeEq};

use super::{Candidate, Record, Verdict, VerifyRequest};
use crate::otp::clock::UnixMillis;
use crate::otp::code::Tag;
use crate::otp::idempotency::IdempotencyId;
use crate::otp::keys::KeyId;
use crate::otp::policy::Policy;

/// How long a right code is answered again.
pub const REPLAY_TIME: Duration = Duration::from_secs(60);

/// What lets a right code be answered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The client's key.
    pub key: IdempotencyId,
    /// The key that the right code's tag was made with.
    pub key_id: KeyId,
    /// The right code's tag.
    pub tag: Tag,
    /// Until when it is answered.
    pub until: UnixMillis,
    /// How many other codes came under the client's key. They are compared as any guess is, so that
    /// no more of them may come than against a live code.
    pub mismatches: u32,
}

impl VerifyRequest {
    /// Whether a code of this tag was typed. All tags are compared, each in constant time.
    fn has_tag(&self, key_id: KeyId, tag: Tag) -> bool {
        let same = |typed: &(KeyId, Tag)| typed.0.0.ct_eq(&key_id.0) & typed.1.0.ct_eq(&tag.0);
        let found = self.tags.iter().map(same);
        found
            .fold(Choice::from(0), |found, same| found | same)
            .into()
    }

    pub(super) fn is_for(&self, candidate: &Candidate) -> bool {
        self.has_tag(candidate.key_id, candidate.tag)
    }

    pub(super) fn replay_of(&self, right: &Candidate, now: UnixMillis) -> Option<Replay> {
        Some(Replay {
            key: self.idempotency?,
            key_id: right.key_id,
            tag: right.tag,
            until: now.after(REPLAY_TIME),
            mismatches: 0,
        })
    }
}

impl Record {
    /// What a request gets whose key has had its success. Other codes under that key are guesses, too:
    /// after as many as a live code allows, the success is not answered any more.
    pub(super) fn repeat(&mut self, policy: &Policy, request: &VerifyRequest) -> Option<Verdict> {
        let success = self.success.as_mut()?;
        let replay = success.replay.as_mut()?;
        if request.idempotency != Some(replay.key) {
            return None;
        }
        if request.has_tag(replay.key_id, replay.tag) {
            return Some(Verdict::Repeated);
        }
        replay.mismatches += 1;
        if replay.mismatches >= policy.attempts {
            success.replay = None;
        }
        Some(Verdict::KeyReused)
    }
}
