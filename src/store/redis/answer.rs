//! What the scripts answer, read. Anything else than a script promises is nothing.

use std::time::Duration;

use redis::{FromRedisValue, Value};

use super::client::Client;
use crate::otp::clock::UnixMillis;
use crate::otp::code::Nonce;
use crate::otp::keys::KeyId;
use crate::store::{Admission, Admitted, Cause, Check, Evaluated, Issued, Repetition, Verdict};

/// Reads what `admit.lua` answers about a request of this client.
pub fn admitted(answer: Vec<Value>, client: Option<&Client>) -> Option<Admitted> {
    let mut parts = answer.into_iter();
    let outcome = String::from_redis_value(parts.next()?).ok()?;
    let detail = parts.next()?;
    let admission = match outcome.as_str() {
        "granted" => Admission::Granted,
        "refused" => Admission::Refused {
            retry_after: duration(detail)?,
        },
        "client_refused" => Admission::ClientRefused {
            retry_after: duration(detail)?,
        },
        "in_flight" => Admission::Repeated(Repetition::InFlight {
            retry_after: duration(detail)?,
        }),
        "accepted" => Admission::Repeated(Repetition::Accepted {
            id: String::from_redis_value(detail).ok()?,
        }),
        "unfinished" => Admission::Repeated(Repetition::Unfinished {
            id: String::from_redis_value(detail).ok()?,
        }),
        "other_request" => Admission::Repeated(Repetition::OtherRequest),
        _ => return None,
    };
    Some(Admitted {
        admission,
        client: match client {
            Some(client) => Some(client.generate_quotas(parts)?),
            None => None,
        },
    })
}

/// Reads what `verify.lua` answers about a code that this client typed.
pub fn check(answer: &[u8], client: Option<&Client>) -> Option<Check> {
    let (&[what, normal, stepped], rest) = answer.split_first_chunk()?;
    let (resolved, rest) = split_number::<2>(rest)?;
    let (wait_ms, rest) = split_number::<6>(rest)?;
    let (remaining, rest) = split_number::<4>(rest)?;
    let (more_in_ms, rest) = split_number::<6>(rest)?;
    let verdict = match what {
        1 => Verdict::Correct,
        2 => Verdict::Repeated,
        3 => Verdict::KeyReused,
        4 => Verdict::Incorrect(Cause::Wrong),
        5 => Verdict::Incorrect(Cause::NoLiveCode),
        6 => Verdict::Incorrect(Cause::BudgetSpent),
        7 => Verdict::Refused {
            retry_after: Duration::from_millis(wait_ms),
        },
        _ => return None,
    };
    let remaining = u32::try_from(remaining).ok()?;
    let more_in = Duration::from_millis(more_in_ms);
    rest.is_empty().then(|| Check {
        verdict,
        evaluated: Evaluated { normal, stepped },
        resolved: u32::try_from(resolved).unwrap_or(u32::MAX),
        client: client.map(|client| client.failures(remaining, more_in)),
    })
}

/// A number of so many octets, the most significant one first, and what is behind it.
fn split_number<const N: usize>(octets: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = octets.split_first_chunk::<N>()?;
    let add = |sum, octet: &u8| (sum << 8) | u64::from(*octet);
    Some((number.iter().fold(0, add), rest))
}

/// Milliseconds; less than none say that something is unreadable.
pub fn duration(value: Value) -> Option<Duration> {
    let wait_ms = i64::from_redis_value(value).ok()?;
    Some(Duration::from_millis(u64::try_from(wait_ms).ok()?))
}

/// Reads what `issue.lua` answers.
pub fn issued(answer: Vec<Value>) -> Option<Issued> {
    let mut parts = answer.into_iter();
    let outcome = String::from_redis_value(parts.next()?).ok()?;
    match outcome.as_str() {
        "superseded" => return Some(Issued::Superseded),
        "too_old" => return Some(Issued::TooOld),
        "blocked" => return Some(Issued::Blocked),
        "live" => {}
        _ => return None,
    }
    let nonce = Vec::<u8>::from_redis_value(parts.next()?).ok()?;
    let key_id = Vec::<u8>::from_redis_value(parts.next()?).ok()?;
    let digits = u8::from_redis_value(parts.next()?).ok()?;
    let expires_at = u64::from_redis_value(parts.next()?).ok()?;
    let now = u64::from_redis_value(parts.next()?).ok()?;
    Some(Issued::Live {
        nonce: Nonce(nonce.try_into().ok()?),
        key_id: KeyId(key_id.try_into().ok()?),
        digits,
        expires_at: UnixMillis(expires_at),
        now: UnixMillis(now),
    })
}
