//! The rules of one-time codes, without input or output: addresses, codes, keys, the decisions
//! about one challenge, the budgets of one mailbox and of one client, the paces of mails, the breaker,
//! and time. It calls nobody.

pub mod address;
pub mod api_key;
pub mod breaker;
pub mod budget;
pub mod client_budget;
pub mod clock;
pub mod code;
pub mod idempotency;
pub mod keys;
pub mod network;
pub mod pace;
pub mod policy;
pub mod record;
