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
pub fn check(answer: Vec<Value>, client: Option<&Client>) -> Option<Check> {
    let mut parts = answer.into_iter();
    let outcome = String::from_redis_value(parts.next()?).ok()?;
    let evaluated = Evaluated {
        normal: u8::from_redis_value(parts.next()?).ok()?,
        stepped: u8::from_redis_value(parts.next()?).ok()?,
    };
    let resolved = u32::from_redis_value(parts.next()?).ok()?;
    let retry_after = duration(parts.next()?)?;
    let verdict = match outcome.as_str() {
        "correct" => Verdict::Correct,
        "repeated" => Verdict::Repeated,
        "key_reused" => Verdict::KeyReused,
        "wrong" => Verdict::Incorrect(Cause::Wrong),
        "no_live_code" => Verdict::Incorrect(Cause::NoLiveCode),
        "budget_spent" => Verdict::Incorrect(Cause::BudgetSpent),
        "refused" => Verdict::Refused { retry_after },
        _ => return None,
    };
    Some(Check {
        verdict,
        evaluated,
        resolved,
        client: match client {
            Some(client) => Some(client.failure_quota(parts)?),
            None => None,
        },
    })
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
