//! The contract of the jobs queue, on both backends.

mod bench;
mod bullmq;
mod endings;
mod retries;
mod running;
mod sqlite;
mod waiting;
