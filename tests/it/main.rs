//! The integration tests: otpost as a library and as a built binary, with real Redis servers and
//! real SMTP dialogues.

mod api;
mod app;
mod command_line;
mod contract;
mod delivery;
mod smtp;
mod support;
