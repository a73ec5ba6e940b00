//! No digit but those of ASCII is one.

use super::Bench;

/// The zero of every script that has decimal digits in Unicode 15, but for ASCII.
const ZEROS: [u32; 67] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
    0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50,
    0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x11f50, 0x16a60, 0x16ac0,
    0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e4f0, 0x1e950,
    0x1fbf0,
];

#[tokio::test]
async fn no_digit_but_those_of_ascii_is_a_digit_in_any_place() {
    let bench = Bench::refusing();
    for digit in ZEROS.iter().flat_map(|zero| *zero..zero + 10) {
        let digit = char::from_u32(digit).unwrap();
        assert!(digit.is_numeric(), "{digit:?}");
        for place in 0..6 {
            let otp: String = "012345"
                .chars()
                .enumerate()
                .map(|(index, ascii)| if index == place { digit } else { ascii })
                .collect();
            let body = format!(r#"{{"email":"ada@example.org","otp":"{otp}"}}"#);
            let answer = bench.post("/otp/verify", body).await;
            assert_eq!(answer.status, 400, "{otp}");
        }
    }
    bench.assert_untouched();
}
