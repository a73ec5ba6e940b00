//! The one-time code: derived from a nonce, compared by its tag, never stored.
//!
//! `code = first 128 bits of HMAC-SHA-256(K_code, nonce || challenge) mod 10^digits`, leading zeros
//! kept; the bias is below 2^-100. `tag = HMAC-SHA-256(K_tag, challenge || code)` is what a store
//! keeps, so that a dump of the store gives nobody a code (ASVS 5.0.0, 6.5.2).

use std::fmt;

use hmac::Mac;

use super::address::ChallengeId;
use super::keys::{CodeKey, keyed};

/// The lengths that a code can have: 6 to 8 digits, 8 being the stepped-up one.
pub const DIGITS: std::ops::RangeInclusive<u8> = 6..=8;

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    /// Fills the whole buffer with random bytes.
    ///
    /// # Errors
    /// When the source has none; nothing may go on without them.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), NoEntropy>;
}

/// The source of random bytes failed.
#[derive(Debug, thiserror::Error)]
#[error("the source of random bytes failed: {0}")]
pub struct NoEntropy(pub String);

/// The generator of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), NoEntropy> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that draws chance"
        )]
        let filled = getrandom::fill(buffer);
        filled.map_err(|error| NoEntropy(error.to_string()))
    }
}

/// 128 random bits from which, with the key, a code is derived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// Draws a fresh nonce.
    pub fn draw(entropy: &dyn Entropy) -> Result<Self, NoEntropy> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Nonce(..)")
    }
}

/// What a store keeps of a code: enough to compare, nothing to guess from without the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub [u8; 32]);

impl fmt::Debug for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tag(..)")
    }
}

/// A code of 6 to 8 ASCII digits. It shows itself only through [`Code::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Code(String);

/// Why a text is not a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Something other than ASCII digits and the separators that people paste.
    #[error("must consist of ASCII digits")]
    NotDigits,
    /// A number of digits that no code has.
    #[error("must have as many digits as the code in the mail")]
    Length,
}

impl Code {
    /// The code that belongs to `nonce` and `challenge` under `key`.
    pub fn derive(key: &CodeKey, nonce: Nonce, challenge: ChallengeId, digits: u8) -> Self {
        let mut mac = keyed(key.code());
        mac.update(&nonce.0);
        mac.update(&challenge.0);
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let mut head = [0; 16];
        head.copy_from_slice(&digest[..16]);
        let number = u128::from_be_bytes(head) % 10_u128.pow(u32::from(digits));
        Self(format!("{number:0width$}", width = usize::from(digits)))
    }

    /// Reads what a person typed or pasted. Spaces, tabs, hyphens, no-break and zero-width spaces
    /// are dropped; what remains must be ASCII digits in one of the `lengths`.
    pub fn parse(text: &str, lengths: &[u8]) -> Result<Self, CodeError> {
        let digits: String = text
            .chars()
            .filter(|character| !is_separator(*character))
            .collect();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CodeError::NotDigits);
        }
        if !lengths
            .iter()
            .any(|length| usize::from(*length) == digits.len())
        {
            return Err(CodeError::Length);
        }
        Ok(Self(digits))
    }

    /// The tag under which a store knows this code.
    pub fn tag(&self, key: &CodeKey, challenge: ChallengeId) -> Tag {
        let mut mac = keyed(key.tag());
        mac.update(&challenge.0);
        mac.update(self.0.as_bytes());
        Tag(mac.finalize().into_bytes().into())
    }

    /// The digits, for the mail and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Code(..)")
    }
}

/// What people's clipboards put between and around digits: ASCII space, tab and hyphen, the
/// no-break spaces, zero-width spaces and joiners, the byte order mark.
fn is_separator(character: char) -> bool {
    matches!(
        character,
        ' ' | '\t' | '-' | '\u{a0}' | '\u{202f}' | '\u{200b}'
            ..='\u{200d}' | '\u{2060}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otp::keys::KeyRing;

    fn key() -> CodeKey {
        KeyRing::new(&[7; 32], &[], &[9; 32]).current().clone()
    }

    #[test]
    fn the_generator_of_the_system_fills_the_buffer_each_time_anew() {
        let [one, other] = [(); 2].map(|()| Nonce::draw(&OsEntropy).unwrap().0);
        assert_ne!(one, [0; 16]);
        assert_ne!(one, other);
    }

    #[test]
    fn a_code_keeps_its_leading_zeros_and_its_length() {
        let key = key();
        let mut leading_zeros = 0;
        for seed in 0..2_000_u16 {
            let mut nonce = [0; 16];
            nonce[..2].copy_from_slice(&seed.to_be_bytes());
            for digits in DIGITS {
                let code = Code::derive(&key, Nonce(nonce), ChallengeId([1; 16]), digits);
                assert_eq!(code.reveal().len(), usize::from(digits));
                leading_zeros += usize::from(code.reveal().starts_with('0'));
            }
        }
        // 6,000 codes, a tenth of which begin with 0: 600, five standard deviations are 116.
        assert!(
            (484..716).contains(&leading_zeros),
            "{leading_zeros} codes begin with 0"
        );
    }

    /// The value was computed with another implementation of HMAC-SHA-256 (Python's `hmac`).
    #[test]
    fn a_code_is_the_first_128_bits_of_the_hmac_modulo_a_power_of_ten() {
        let ring = KeyRing::new(&[7; 32], &[], &[9; 32]);
        let code = Code::derive(ring.current(), Nonce([3; 16]), ChallengeId([5; 16]), 6);
        assert_eq!(code.reveal(), KNOWN_CODE);
    }

    const KNOWN_CODE: &str = "358489";

    #[test]
    fn a_code_depends_on_nonce_challenge_and_key() {
        let key = key();
        let other = KeyRing::new(&[8; 32], &[], &[9; 32]).current().clone();
        let code = |key, nonce, challenge| {
            Code::derive(key, Nonce([nonce; 16]), ChallengeId([challenge; 16]), 8)
        };
        let base = code(&key, 1, 1);
        assert_eq!(base, code(&key, 1, 1));
        assert_ne!(base, code(&key, 2, 1));
        assert_ne!(base, code(&key, 1, 2));
        assert_ne!(base, code(&other, 1, 1));
    }

    #[test]
    fn codes_are_spread_evenly_over_all_values() {
        let key = key();
        let mut buckets = [0_u32; 1_000];
        for seed in 0..100_000_u32 {
            let mut nonce = [0; 16];
            nonce[..4].copy_from_slice(&seed.to_be_bytes());
            let code = Code::derive(&key, Nonce(nonce), ChallengeId([1; 16]), 6);
            let value: usize = code.reveal().parse().unwrap();
            buckets[value / 1_000] += 1;
        }
        let chi_square: f64 = buckets
            .iter()
            .map(|seen| (f64::from(*seen) - 100.0).powi(2) / 100.0)
            .sum();
        // 999 degrees of freedom: mean 999, standard deviation 44.7; five of them either side.
        assert!(
            (776.0..1_223.0).contains(&chi_square),
            "chi-square {chi_square}"
        );
    }

    #[test]
    fn pasted_separators_are_dropped() {
        for text in [
            "123456",
            "123 456",
            " 123-456\t",
            "12\u{a0}34\u{200b}56",
            "\u{feff}123456",
        ] {
            assert_eq!(
                Code::parse(text, &[6, 8]).unwrap().reveal(),
                "123456",
                "{text:?}"
            );
        }
    }

    #[test]
    fn only_ascii_digits_of_a_known_length_are_a_code() {
        for text in [
            "",
            " ",
            "12345a",
            "+12345",
            "1e5000",
            "１２３４５６",
            "١٢٣٤٥٦",
            "123456\n",
        ] {
            assert_eq!(
                Code::parse(text, &[6, 8]),
                Err(CodeError::NotDigits),
                "{text:?}"
            );
        }
        for text in ["1", "12345", "1234567", "123456789"] {
            assert_eq!(
                Code::parse(text, &[6, 8]),
                Err(CodeError::Length),
                "{text:?}"
            );
        }
    }

    #[test]
    fn neither_code_nor_tag_nor_nonce_shows_itself_in_debug_output() {
        let code = Code::parse("123456", &[6]).unwrap();
        let shown = format!(
            "{code:?} {:?} {:?}",
            code.tag(&key(), ChallengeId([1; 16])),
            Nonce([1; 16])
        );
        assert_eq!(shown, "Code(..) Tag(..) Nonce(..)");
    }
}
