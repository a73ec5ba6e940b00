//! otpost

pub mod config;
