//! Load for otpost: HTTP requests on a schedule, an SMTP server that takes the mail, and what both
//! cost the processes under test.

pub mod mime;
pub mod sink;
