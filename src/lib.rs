//! otpost proves that a person reads an email address: one endpoint mails a one-time code, one
//! endpoint checks it.
//!
//! ```text
//! POST /otp/generate {email}                       POST /otp/verify {email, otp}
//!       |                                                   |
//!   api::generate   -- limits -->  store                api::verify
//!       |                                                   |
//!   queue (producer)                                      store   one atomic decision
//!       |                                                   |
//!   OTP jobs queue   (BullMQ on Redis | SQLite)         "OTP is correct" / "OTP is incorrect"
//!       |
//!   processor   makes the code, stores it for 10 minutes
//!       |
//!   mailer      otp.hbs -> SMTP -> acknowledgement = job completed
//! ```
//!
//! The modules stand in reading order, and imports only run downwards; `tests/architecture.rs`
//! holds the table.

pub mod queue;
pub mod store;
pub mod redis_link;
pub mod sqlite;
pub mod telemetry;
pub mod shutdown;
pub mod otp;
