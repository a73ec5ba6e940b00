//! Load for otpost: HTTP requests on a schedule, an SMTP server that takes the mail, and what both
//! cost the processes under test.
//!
//! Modules in reading order: [`mime`] finds the code in a mail, [`sink`] is the SMTP server,
//! [`http`] the client, [`pace`] decides when a request is due, [`scenario`] runs a measurement with
//! a `worker` for each connection, [`process`] reads /proc, [`target`] starts and stops otpost and
//! Redis, [`report`] turns measurements into rows, [`table`] compares the two backends;
//! [`welch`], [`comparison`] and [`timing`] compare answers that must not differ.

pub mod comparison;
pub mod http;
pub mod mime;
pub mod pace;
pub mod process;
pub mod report;
pub mod scenario;
pub mod sink;
pub mod table;
pub mod target;
pub mod timing;
pub mod welch;
mod worker;
