//! The contracts that every backend keeps, each run in full on every backend.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may end at the first thing that is not as it should be"
)]

mod queue;
mod store;
mod store_bench;
mod store_cluster;
mod store_durability;
mod store_link;
mod store_notes;
mod store_outage;
mod store_property;
mod store_races;
