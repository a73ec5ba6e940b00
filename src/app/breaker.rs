//! The watch over the whole service: tells the store of this process's wrong codes, asks it for
//! those of all, and opens or closes the breaker.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::otp::breaker::Breaker;
use crate::store::OtpStore;
use crate::telemetry::Telemetry;

/// How often a process tells and asks.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the store may take for it.
pub const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// Who watches.
pub struct Watch {
    /// Counts for all processes.
    pub store: Arc<dyn OtpStore>,
    /// Counts for this one.
    pub breaker: Arc<Breaker>,
    /// Whom a change is told.
    pub telemetry: Arc<Telemetry>,
}

impl Watch {
    /// Watches until `stop`.
    pub async fn keep(&self, stop: &CancellationToken) {
        self.look().await;
        while tokio::time::timeout(INTERVAL, stop.cancelled())
            .await
            .is_err()
        {
            self.look().await;
        }
    }

    /// Tells and asks once: between the last request and the end of the process, too.
    pub async fn look(&self) {
        let untold = self.breaker.take();
        let noting = self.store.note_unresolved(untold);
        match tokio::time::timeout(LOOK_DEADLINE, noting).await {
            Ok(Ok(history)) => {
                if self.breaker.heed(&history) {
                    let is_open = self.breaker.is_open();
                    self.telemetry
                        .breaker_turned(is_open, history.last_day, history.borne());
                }
            }
            Ok(Err(error)) => {
                self.breaker.put_back(untold);
                self.telemetry.part_failed("store", &error);
            }
            Err(_elapsed) => {
                self.breaker.put_back(untold);
                let failure = format!("no answer within {LOOK_DEADLINE:?}");
                self.telemetry.part_failed("store", &failure);
            }
        }
    }
}
