//! What the integration tests share.

pub mod clock;
pub mod fakes;
pub mod redis_server;
pub mod smtp_server;
