//! otpost
