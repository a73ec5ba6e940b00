//! The integration tests: otpost as a library and as a built binary, with real Redis servers and
//! real SMTP dialogues.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may end at the first thing that is not as it should be"
)]

mod api;
mod app;
mod client_limits;
mod gate;
mod command_line;
mod contract;
mod delivery;
mod durability;
mod fail_closed;
mod group_commit;
mod rotation;
mod secrets;
mod security_paper;
mod overload;
mod idempotency;
mod intake;
mod smtp;
mod support;
