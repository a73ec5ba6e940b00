//! The contracts that every backend keeps, each run in full on every backend.

mod queue;
mod store;
mod store_attacker;
mod store_bench;
mod store_budget;
mod store_budget_property;
mod store_budget_races;
mod store_cluster;
mod store_durability;
mod store_jobs;
mod store_link;
mod store_migration;
mod store_notes;
mod store_outage;
mod store_property;
mod store_races;
mod store_sqlite;
