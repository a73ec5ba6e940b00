//! A key of 256 bits that does not show itself.

use std::fmt;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use secrecy::{ExposeSecret, SecretBox};

/// 32 secret bytes.
pub struct SecretKey(SecretBox<[u8; 32]>);

impl SecretKey {
    /// Take over 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// Parse base64 of 32 bytes, either alphabet, with or without padding.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let hint = "must be 32 random bytes in base64; make one with `otpost keygen`";
        let text = text.trim_end_matches('=').as_bytes();
        let bytes = BASE64_NOPAD
            .decode(text)
            .or_else(|_error| BASE64URL_NOPAD.decode(text))
            .map_err(|_error| hint)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_bytes| hint)?;
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err("is not random: all its bytes are the same; make one with `otpost keygen`");
        }
        Ok(Self::new(bytes))
    }

    /// The bytes, for the line that derives keys from them.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

impl Clone for SecretKey {
    fn clone(&self) -> Self {
        Self::new(*self.expose())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "+/8CAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    #[test]
    fn a_key_is_base64_in_any_of_its_forms() {
        for text in [
            KEY.to_owned(),
            format!("{KEY}="),
            KEY.replace('+', "-").replace('/', "_"),
        ] {
            assert_eq!(
                SecretKey::parse(&text).unwrap().expose()[..4],
                [251, 255, 2, 3],
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_of_another_length_or_without_chance_is_refused() {
        let zeros = "A".repeat(43);
        for text in [
            "",
            "secret",
            &KEY[..42],
            &format!("{KEY}AA"),
            &zeros,
            &format!(" {KEY}"),
            "AAECAwQFBgcICQoLDA0ODw==",
        ] {
            assert!(SecretKey::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_does_not_show_itself() {
        assert_eq!(
            format!("{:?}", SecretKey::parse(KEY).unwrap()),
            "SecretKey(***)"
        );
    }
}
