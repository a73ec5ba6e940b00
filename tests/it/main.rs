//! The integration tests: otpost as a library and as a built binary, with real Redis servers and
//! real SMTP dialogues.

mod support;
mod api;
