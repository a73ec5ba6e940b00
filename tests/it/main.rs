//! The integration tests: otpost as a library and as a built binary, with real Redis servers and
//! real SMTP dialogues.

mod api;
mod contract;
mod smtp;
mod support;
mod api;
