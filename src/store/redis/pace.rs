//! The paces in Redis: one list of instants a name, on whichever node its name falls.

use std::time::Duration;

use super::{RedisStore, number, unreadable};
use crate::otp::clock::{UnixMillis, millis};
use crate::otp::pace::MINUTE;
use crate::store::{Pace, PaceName, Paced, StoreError};

/// Decides whether one more mail is within the pace, and counts it then.
pub async fn ask(store: &RedisStore, pace: &Pace) -> Result<Paced, StoreError> {
    let args = [
        store.injected_now(),
        number(u64::from(pace.per_minute)),
        number(millis(MINUTE)),
    ];
    let keys = [key(pace.name)];
    let answer: (i64, u64) = store.invoke(&store.scripts.pace, &keys, &args).await?;
    match answer {
        (0, at) => Ok(Paced::Now(UnixMillis(at))),
        (1, wait_ms) => Ok(Paced::Wait(Duration::from_millis(wait_ms))),
        _ => Err(unreadable("a pace")),
    }
}

/// Takes back the newest mail of that instant.
pub async fn give_back(
    store: &RedisStore,
    name: PaceName,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let keys = [key(name)];
    let args = [number(at.0)];
    let script = &store.scripts.give_back_pace;
    let _removed: u64 = store.invoke(script, &keys, &args).await?;
    Ok(())
}

fn key(name: PaceName) -> String {
    format!("otpost:{{m:{name}}}")
}
