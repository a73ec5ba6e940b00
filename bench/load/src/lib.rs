//! Load for otpost: HTTP requests on a schedule, an SMTP server that takes the mail, and what both
//! cost the processes under test.

pub mod http;
pub mod mime;
pub mod pace;
pub mod process;
pub mod report;
pub mod scenario;
pub mod sink;
