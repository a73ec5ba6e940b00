//! The wrong codes of the whole service that no success followed, in Redis: all hours in one value.

use super::{RedisStore, number, unreadable};
use crate::otp::breaker::{HOURS_KEPT, History, Hour};
use crate::otp::clock::millis;
use crate::otp::policy::HOUR;
use crate::store::StoreError;

/// Where the hours are; all processes share them.
const KEY: &str = "otpost:{global}:unresolved";

/// Adds to the current hour; tells what the hours come to.
pub async fn note(store: &RedisStore, failures: i64) -> Result<History, StoreError> {
    let args = [
        store.injected_now(),
        failures.to_string().into_bytes(),
        number(millis(HOUR)),
        number(HOURS_KEPT),
    ];
    let keys = [KEY.to_owned()];
    let script = &store.scripts.unresolved;
    let answer: (u64, Vec<(u64, i64)>) = store.invoke(script, &keys, &args).await?;
    let (current, hours) = answer;
    if current == 0 {
        return Err(unreadable("the failures of the whole service"));
    }
    let hours = hours
        .into_iter()
        .map(|(number, failures)| Hour { number, failures });
    Ok(History::of(hours, current))
}
