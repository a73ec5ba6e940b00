//! The contract of the jobs queue, on both backends.

pub mod bench;
mod bullmq;
mod endings;
mod outages;
mod retries;
mod running;
mod sqlite;
mod waiting;
