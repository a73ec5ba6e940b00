//! The contract of the jobs queue, on both backends.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets what it does not expect fails"
)]

mod bench;
mod bullmq;
mod endings;
mod retries;
mod running;
mod waiting;
