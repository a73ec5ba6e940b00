//! What the integration tests share.

pub mod clock;
pub mod fakes;
pub mod process;
pub mod proxy;
pub mod redis_server;
pub mod smtp_server;
