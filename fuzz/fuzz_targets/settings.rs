//! The settings file: settings or findings, and the settings in effect are shown as a file again.

#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use otpost::config::{Sources, load};

fuzz_target!(|text: &str| {
    let sources = Sources {
        file: Some((PathBuf::from("otpost.toml"), text.to_owned())),
        ..Sources::default()
    };
    match load(&sources) {
        Ok(config) => assert!(config.print().contains("[http]")),
        Err(findings) => {
            assert!(!findings.is_empty());
            assert!(!findings.to_string().is_empty());
        }
    }
});
