//! The tool against targets that behave and targets that do not.

mod fake;
mod measurements;
mod programs;
mod sink;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
