//! A clock that a test sets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use otpost::otp::clock::{Clock, UnixMillis, millis};

/// Stands still until it is moved.
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows a fixed instant of 2026.
    pub fn new() -> Self {
        Self(AtomicU64::new(1_790_000_000_000))
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(millis(span), Ordering::SeqCst);
    }

    /// Moves the clock back, as an operator or a time server may.
    pub fn set_back(&self, span: Duration) {
        self.0.fetch_sub(millis(span), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}
