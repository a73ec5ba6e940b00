//! API keys: what a calling application presents, and the hashes by which otpost knows the keys
//! without having them.
//!
//! A key has 256 random bits, so that nobody finds it by trying, whatever the hash costs: one
//! SHA-256 is enough, and a slow hash would only let strangers spend our CPU time.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::code::{Entropy, NoEntropy};

/// What a key begins with, so that people and secret scanners recognise one.
const KEY_PREFIX: &str = "otpost_";
/// What a hash begins with.
const HASH_PREFIX: &str = "sha256:";

/// Draws a fresh key.
pub fn draw(entropy: &dyn Entropy) -> Result<Zeroizing<String>, NoEntropy> {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(&mut *bytes)?;
    let mut key = Zeroizing::new(BASE32_NOPAD.encode(&*bytes));
    key.make_ascii_lowercase();
    Ok(Zeroizing::new(format!("{KEY_PREFIX}{}", *key)))
}

/// The hash of a key, as the settings list it: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyHash([u8; 32]);

/// Why a text is not the hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyHashError {
    /// Not the form of a hash.
    #[error(
        "must hold hashes of keys, `sha256:` and 64 hexadecimal digits; `otpost apikey` makes them"
    )]
    Form,
    /// The key stands where its hash belongs.
    #[error(
        "holds a key itself; list its hash, which `otpost apikey` printed beside it, and drop that key"
    )]
    Key,
}

impl ApiKeyHash {
    /// Reads a hash. The text may be a secret by mistake, and no error repeats it.
    pub fn parse(text: &str) -> Result<Self, ApiKeyHashError> {
        if text.starts_with(KEY_PREFIX) {
            return Err(ApiKeyHashError::Key);
        }
        let digits = text
            .strip_prefix(HASH_PREFIX)
            .ok_or(ApiKeyHashError::Form)?;
        let bytes = HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .map_err(|_error| ApiKeyHashError::Form)?;
        let bytes = bytes.try_into().map_err(|_bytes| ApiKeyHashError::Form)?;
        Ok(Self(bytes))
    }

    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether a presented key is one of the listed ones. All are compared, each in constant time.
    pub fn is_listed(key: &[u8], listed: &[Self]) -> bool {
        let presented = Self::of(key);
        let found = listed.iter().fold(Choice::from(0), |found, hash| {
            found | hash.0.ct_eq(&presented.0)
        });
        found.into()
    }
}

impl fmt::Display for ApiKeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{HASH_PREFIX}{}", HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKeyHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otp::code::OsEntropy;

    #[test]
    fn a_key_is_recognisable_and_has_256_random_bits() {
        let (first, second) = (draw(&OsEntropy).unwrap(), draw(&OsEntropy).unwrap());
        assert_ne!(first, second);
        let random = first.strip_prefix("otpost_").unwrap();
        assert_eq!(random.len(), 52);
        let is_base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        assert!(random.bytes().all(is_base32));
    }

    #[test]
    fn a_hash_reads_back_and_knows_its_key_only() {
        // NIST's example of SHA-256.
        let hash = ApiKeyHash::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(ApiKeyHash::parse(text), Ok(hash.clone()));
        let upper = text.to_uppercase().replace("SHA256", "sha256");
        assert_eq!(ApiKeyHash::parse(&upper), Ok(hash.clone()));
        let listed = [ApiKeyHash::of(b"x"), hash, ApiKeyHash::of(b"y")];
        for key in [&b"abc"[..], b"x", b"y"] {
            assert!(ApiKeyHash::is_listed(key, &listed));
        }
        for key in [&b""[..], b"ab", b"abcd", text.as_bytes()] {
            assert!(!ApiKeyHash::is_listed(key, &listed));
        }
        assert!(!ApiKeyHash::is_listed(b"abc", &[]));
        let twice = [ApiKeyHash::of(b"x"), ApiKeyHash::of(b"x")];
        assert!(ApiKeyHash::is_listed(b"x", &twice));
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_repeated() {
        let digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for text in [
            "",
            "sha256:",
            digits,
            &format!("sha512:{digits}"),
            &format!("SHA256:{digits}"),
            &format!("sha256:{}", &digits[1..]),
            &format!("sha256:{digits}00"),
            &format!("sha256: {digits}"),
            &format!("sha256:{}g", &digits[1..]),
        ] {
            assert_eq!(
                ApiKeyHash::parse(text),
                Err(ApiKeyHashError::Form),
                "{text}"
            );
        }
        let key = draw(&OsEntropy).unwrap();
        let error = ApiKeyHash::parse(&key).unwrap_err();
        assert_eq!(error, ApiKeyHashError::Key);
        assert!(!error.to_string().contains(&key[7..]));
    }
}
