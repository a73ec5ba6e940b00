//! The integration tests: otpost as a library and as a built binary, with real Redis servers and
//! real SMTP dialogues.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may end at the first thing that is not as it should be"
)]

mod api;
mod app;
mod gate;
mod command_line;
mod contract;
mod delivery;
mod group_commit;
mod smtp;
mod support;
