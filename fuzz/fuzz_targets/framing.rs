//! Framing: whatever passes has one reading, wherever the network cuts the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use otpost::api::framing::{Framing, HEAD_BYTES};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut whole = Framing::default();
    whole.receive(bytes);
    let passed = whole.pass(usize::MAX).to_vec();
    let mut pieces = Framing::default();
    let mut passed_in_pieces = Vec::new();
    for part in bytes.chunks(usize::from(piece).max(1)) {
        pieces.receive(part);
        passed_in_pieces.extend_from_slice(pieces.pass(usize::MAX));
    }
    assert_eq!(passed, passed_in_pieces);
    assert_eq!(whole.last(), pieces.last());
    let Some(head) = passed.windows(4).position(|end| end == b"\r\n\r\n") else {
        return;
    };
    // The first head, but for empty lines before it.
    let head = &passed[..head];
    assert!(head.len() <= HEAD_BYTES);
    for line in head.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(
            !line
                .iter()
                .any(|byte| matches!(byte, 0..=8 | 10..=31 | 127))
        );
    }
});
