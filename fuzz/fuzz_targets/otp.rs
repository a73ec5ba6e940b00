//! Codes as people type them: what is accepted is the ASCII digits of the text and nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use otpost::otp::code::Code;

fuzz_target!(|text: &str| {
    let Ok(code) = Code::parse(text, &[6, 8]) else {
        return;
    };
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    assert_eq!(code.reveal(), digits);
    assert!(digits.len() == 6 || digits.len() == 8);
    // Nothing that means a number elsewhere was dropped.
    assert!(
        !text
            .chars()
            .any(|character| character.is_alphanumeric() && !character.is_ascii_digit())
    );
    assert!(!text.contains(['+', '.', ',', '\0', '\n']));
});
