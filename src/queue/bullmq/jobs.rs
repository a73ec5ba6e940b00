//! Our own questions to Redis about jobs, beside the crate: each is one round trip, and none walks
//! through a list.

use std::time::Duration;

use bullmq::QueueKeys;

use crate::otp::clock::UnixMillis;
use crate::queue::{Counts, JobState, Phase};
use crate::redis_link::{LinkError, RedisLink, Script};

/// Asks about jobs of one queue.
#[derive(Clone)]
pub struct Jobs {
    link: RedisLink,
    keys: QueueKeys,
    state: Script,
    counts: Script,
    note: Script,
}

impl Jobs {
    /// The jobs under these keys.
    pub fn new(link: RedisLink, keys: QueueKeys) -> Self {
        Self {
            link,
            keys,
            state: Script::new(include_str!("state.lua")),
            counts: Script::new(include_str!("counts.lua")),
            note: Script::new(include_str!("note.lua")),
        }
    }

    /// Answers when Redis does.
    pub async fn ping(&self) -> Result<(), LinkError> {
        self.link.ping().await
    }

    /// Answers when the server that holds this queue does, whatever other servers of a cluster do.
    pub async fn reach(&self) -> Result<(), LinkError> {
        let mut command = redis::cmd("EXISTS");
        command.arg(self.keys.meta());
        self.link.query::<u8>(&command).await.map(drop)
    }

    /// Where a job stands.
    pub async fn state(&self, id: &str) -> Result<Option<JobState>, LinkError> {
        let job = self.keys.job_key(id);
        let keys = [
            job.clone(),
            format!("{job}:lock"),
            self.keys.completed(),
            self.keys.failed(),
            self.keys.delayed(),
        ];
        let found: Option<(String, u64, String, u32)> =
            self.link.invoke(&self.state, &keys, &[id]).await?;
        Ok(found.map(|(place, timestamp, options, started)| JobState {
            phase: match place.as_str() {
                "completed" => Phase::Completed,
                "failed" => Phase::Failed,
                "active" => Phase::Active,
                _ if started > 0 => Phase::Retrying,
                _ => Phase::Waiting,
            },
            requested_at: requested_at(UnixMillis(timestamp), &options),
        }))
    }

    /// How many jobs stand where.
    pub async fn counts(&self) -> Result<Counts, LinkError> {
        let keys = [
            self.keys.wait(),
            self.keys.paused(),
            self.keys.prioritized(),
            self.keys.active(),
            self.keys.delayed(),
            self.keys.failed(),
        ];
        let none: [&str; 0] = [];
        let (waiting, active, delayed, failed) =
            self.link.invoke(&self.counts, &keys, &none).await?;
        Ok(Counts {
            waiting,
            active,
            delayed,
            failed,
        })
    }

    /// Writes why an attempt failed where Bull Board shows it.
    pub async fn note(&self, id: &str, reason: &str, stack: &str) -> Result<(), LinkError> {
        let keys = [self.keys.job_key(id)];
        let _noted: u8 = self
            .link
            .invoke(&self.note, &keys, &[reason, stack])
            .await?;
        Ok(())
    }

    /// The options of a job as its producer wrote them.
    pub async fn options(&self, id: &str) -> Result<String, LinkError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.job_key(id)).arg("opts");
        let found: Option<String> = self.link.query(&command).await?;
        Ok(found.unwrap_or_default())
    }
}

/// The instant that its producer wanted the job to run at: the delay among its options, since the
/// one beside them is changed by every retry.
pub fn requested_at(timestamp: UnixMillis, options: &str) -> UnixMillis {
    let options: serde_json::Value = serde_json::from_str(options).unwrap_or_default();
    let delay = options["delay"].as_f64().unwrap_or_default() / 1_000.0;
    timestamp.after(Duration::try_from_secs_f64(delay).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_for_a_delay_is_read_from_any_number() {
        let at = |options| requested_at(UnixMillis(1_000), options).0;
        assert_eq!(at(r#"{"delay":500,"attempts":3}"#), 1_500);
        assert_eq!(at(r#"{"delay":100.5}"#), 1_100);
        assert_eq!(at(r#"{"delay":-5}"#), 1_000);
        assert_eq!(at(r#"{"delay":"soon"}"#), 1_000);
        assert_eq!(at("{"), 1_000);
    }
}
