//! The record of a challenge as the state of a row.
//!
//! In octets: wrong attempts (4), when a code was last right (8), until when that is
//! remembered (8), both 0 if none was; what lets that be answered again, zeros if nothing does: the
//! client's idempotency key (16), key (8) and tag (32) of the right code, until when (8), how often
//! another code came under that key (4); and for each code, oldest first: tag (32), key (8), digits (1),
//! whether it is stepped up (1), when it was made (8), until when it lives (8), when it was asked for
//! (8), nonce (16), length of the job's id (2), the id. There is always a code, a dead one if need be, and
//! room for a success, so that a row weighs the same whatever became of the challenge.

use rusqlite::Connection;

use super::mailbox::{self, Found};
use super::octets::Octets;
use crate::otp::address::{ChallengeId, LimitId};
use crate::otp::budget::Class;
use crate::otp::clock::UnixMillis;
use crate::otp::code::{Nonce, Tag};
use crate::otp::idempotency::IdempotencyId;
use crate::otp::keys::KeyId;
use crate::otp::record::{Candidate, LiveCode, Record, Replay, Success};

const NEVER: UnixMillis = UnixMillis(0);
const NO_REPLAY: Replay = Replay {
    key: IdempotencyId([0; 16]),
    key_id: KeyId([0; 8]),
    tag: Tag([0; 32]),
    until: NEVER,
    mismatches: 0,
};
/// Octets of a code before the job's id and its length.
const WEIGHT_OF_CODE: usize = 82;
/// Octets of a job's id, as the API makes it.
const ID_LENGTH: u16 = 27;
/// Octets of a state with one code.
const WEIGHT: usize = 88 + WEIGHT_OF_CODE + 2 + ID_LENGTH as usize;

/// What is remembered of this challenge.
pub fn load(
    db: &Connection,
    limit: LimitId,
    challenge: ChallengeId,
) -> rusqlite::Result<Found<Record>> {
    mailbox::load(db, &mailbox::record(limit, challenge), read)
}

/// Writes it, and removes a few rows that are over.
pub fn save(
    db: &Connection,
    limit: LimitId,
    challenge: ChallengeId,
    record: &Found<Record>,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let (name, state) = (mailbox::record(limit, challenge), written(&record.state));
    record.save(db, &name, &state, record.state.ends_at(), now)?;
    mailbox::sweep(db, &name, now)
}

fn read(state: &mut Octets<'_>) -> Option<Record> {
    let attempts = state.number()?;
    let (at, until) = (state.instant()?, state.instant()?);
    let replay = Replay {
        key: IdempotencyId(state.take()?),
        key_id: KeyId(state.take()?),
        tag: Tag(state.take()?),
        until: state.instant()?,
        mismatches: state.number()?,
    };
    let mut codes = state.list(code)?;
    codes.retain(|code| code.expires_at != NEVER);
    Some(Record {
        codes,
        attempts,
        success: (until != NEVER).then_some(Success {
            at,
            until,
            replay: (replay.until != NEVER).then_some(replay),
        }),
    })
}

fn code(state: &mut Octets<'_>) -> Option<LiveCode> {
    let (tag, key_id, digits) = (Tag(state.take()?), KeyId(state.take()?), state.octet()?);
    let is_stepped = state.octet()? != 0;
    let (made_at, expires_at) = (state.instant()?, state.instant()?);
    let requested_at = state.instant()?;
    let nonce = Nonce(state.take()?);
    let length = state.take().map(u16::from_be_bytes)?;
    let (job, rest) = state.0.split_at_checked(length.into())?;
    state.0 = rest;
    Some(LiveCode {
        candidate: Candidate {
            nonce,
            tag,
            key_id,
            digits,
        },
        made_at,
        expires_at,
        class: if is_stepped {
            Class::Stepped
        } else {
            Class::Normal
        },
        job: str::from_utf8(job).ok()?.to_owned(),
        requested_at,
    })
}

fn written(record: &Record) -> Vec<u8> {
    let success = record.success;
    let (at, until) = success.map_or((NEVER, NEVER), |success| (success.at, success.until));
    let replay = success.and_then(|success| success.replay);
    let replay = replay.unwrap_or(NO_REPLAY);
    let mut octets = Vec::with_capacity(WEIGHT);
    octets.extend(record.attempts.to_be_bytes());
    octets.extend(at.0.to_be_bytes());
    octets.extend(until.0.to_be_bytes());
    octets.extend(replay.key.0);
    octets.extend(replay.key_id.0);
    octets.extend(replay.tag.0);
    octets.extend(replay.until.0.to_be_bytes());
    octets.extend(replay.mismatches.to_be_bytes());
    if record.codes.is_empty() {
        octets.extend([0; WEIGHT_OF_CODE]);
        octets.extend(ID_LENGTH.to_be_bytes());
        octets.extend([b'0'; ID_LENGTH as usize]);
    }
    for code in &record.codes {
        write_code(&mut octets, code);
    }
    octets
}

fn write_code(octets: &mut Vec<u8>, code: &LiveCode) {
    octets.extend(code.candidate.tag.0);
    octets.extend(code.candidate.key_id.0);
    octets.extend([
        code.candidate.digits,
        u8::from(code.class == Class::Stepped),
    ]);
    for instant in [code.made_at, code.expires_at, code.requested_at] {
        octets.extend(instant.0.to_be_bytes());
    }
    octets.extend(code.candidate.nonce.0);
    // Ids come from the queue of this process, which makes them itself.
    let length = u16::try_from(code.job.len()).unwrap_or(u16::MAX);
    octets.extend(length.to_be_bytes());
    octets.extend(code.job.bytes().take(length.into()));
}
