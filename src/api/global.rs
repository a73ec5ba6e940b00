//! The budget of mails of the whole service, before anybody else is charged. Who exceeds it is told
//! to come back: a queue that grew instead would mail codes that nobody waits for any more.

use super::problem::Problem;
use super::{Api, within_deadline};
use crate::otp::clock::UnixMillis;
use crate::otp::pace::spread;
use crate::store::Paced;

/// The place of a mail in the budget; none where nothing bounds it.
#[derive(Clone, Copy)]
pub struct Place(Option<UnixMillis>);

/// Takes a place for one mail, or says when there may be one.
pub async fn take(api: &Api) -> Result<Place, Problem> {
    let Some(pace) = &api.global else {
        return Ok(Place(None));
    };
    let paced = within_deadline("store", api.store.pace(pace))
        .await?
        .map_err(Problem::unavailable)?;
    match paced {
        Paced::Now(at) => Ok(Place(Some(at))),
        Paced::Wait(wait) => {
            api.telemetry.limit_refused("global");
            Err(Problem::global_budget_spent(spread(wait, chance(api))))
        }
    }
}

/// Gives it back, since no mail comes of it. Best effort: else there is room after a minute.
pub async fn give_back(api: &Api, place: Place) {
    let (Some(budget), Some(at)) = (&api.global, place.0) else {
        return;
    };
    let giving = api.store.give_back_pace(budget.name, at);
    if let Ok(Err(error)) = within_deadline("store", giving).await {
        api.telemetry.part_failed("store", &error);
    }
}

/// Without a source of chance everybody waits alike.
fn chance(api: &Api) -> u64 {
    let mut bytes = [0; 8];
    match api.entropy.fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::default(),
    }
}
