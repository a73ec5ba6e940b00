//! The header `Idempotency-Key`: with it a client may send a request again whose answer
//! it lost. The value is a structured field's string (RFC 9651 section 3.3.3); a bare token, such as
//! a UUID without quotes, is taken as well, since that is what most clients send.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::client::Client;
use super::problem::Problem;
use crate::otp::address::LimitId;
use crate::otp::keys::KeyRing;
use crate::store::IdempotencyId;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The least and the most characters of a key.
const CHARACTERS: std::ops::RangeInclusive<usize> = 16..=128;

/// The key of a request that its client may repeat, if it sent one.
pub struct IdempotencyKey(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        read(&parts.headers).map(Self)
    }
}

impl IdempotencyKey {
    /// By what the store knows the key: it is this caller's, and for this mailbox.
    pub fn id(&self, keys: &KeyRing, client: &Client, limit: LimitId) -> Option<IdempotencyId> {
        let key = self.0.as_ref()?;
        Some(IdempotencyId::of(keys, &client.caller(keys), limit, key))
    }
}

fn read(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let key = text.and_then(|text| parse(text.trim_ascii()));
    key.map(Some).ok_or_else(Problem::idempotency_key_malformed)
}

fn parse(text: &str) -> Option<String> {
    let key = match text.strip_prefix('"') {
        Some(rest) => unescape(rest.strip_suffix('"')?)?,
        None if is_bare(text) => text.to_owned(),
        None => return None,
    };
    CHARACTERS.contains(&key.len()).then_some(key)
}

/// What stands between the quotes: printable ASCII, quotes and backslashes behind a backslash.
fn unescape(text: &str) -> Option<String> {
    let mut key = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        key.push(match character {
            '\\' => characters
                .next()
                .filter(|next| matches!(next, '"' | '\\'))?,
            ' ' | '!' | '#'..='~' => character,
            _ => return None,
        });
    }
    Some(key)
}

/// A token of a structured field, but one that may begin with a digit.
fn is_bare(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.bytes().all(is_inner)
}

/// The header as the API's description has it.
pub fn parameter() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "Makes the request safe to repeat: the same caller that sends it again with \
                        the same key gets the same answer, and no second mail. A key counts for \
                        its caller and one mailbox: for another it is another key. It is \
                        16 to 128 \
                        printable ASCII characters in double quotes, such as a fresh UUID; without \
                        quotes it is taken as well if it has no spaces, quotes or commas. An \
                        accepted request for a code is remembered for 24 hours, a right code for 60 \
                        seconds; what was refused may be tried again with the same key.",
        "schema": {
            "type": "string",
            "pattern": "^(\"([ !#-\\[\\]-~]|\\\\[\"\\\\]){16,128}\"\
                        |[0-9A-Za-z][0-9A-Za-z!#$%&'*+\\-.^_`|~:/]{15,127})$",
        },
        "example": "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_string_in_quotes_or_a_bare_token() {
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        for (text, key) in [
            (uuid.to_owned(), uuid),
            (format!("\"{uuid}\""), uuid),
            (
                "\"with spaces, commas; =\"".to_owned(),
                "with spaces, commas; =",
            ),
            (
                r#""an \"escape\" and \\""#.to_owned(),
                r#"an "escape" and \"#,
            ),
            ("Az09!#$%&'*+-.^_`|~:/".to_owned(), "Az09!#$%&'*+-.^_`|~:/"),
            ("0123456789abcdef".to_owned(), "0123456789abcdef"),
        ] {
            assert_eq!(parse(&text).as_deref(), Some(key), "{text}");
        }
        let longest = "x".repeat(128);
        assert!(parse(&longest).is_some() && parse(&format!("\"{longest}\"")).is_some());
    }

    #[test]
    fn every_other_form_is_malformed() {
        let sixteen = "0123456789abcdef";
        for text in [
            "",
            "\"",
            "\"\"",
            "0123456789abcde",
            "\"0123456789abcde\"",
            r#""0123456789abc\"\\"#,
            &format!("\"{sixteen}"),
            &format!("{sixteen}\""),
            &format!("\"{sixteen}\"x"),
            &format!("\"{sixteen}\";a=1"),
            &format!("\"{sixteen}\", \"{sixteen}\""),
            &format!("\"{sixteen}\"{sixteen}\""),
            &format!("{sixteen}, {sixteen}"),
            &format!("{sixteen};a=1"),
            &format!(":{sixteen}:"),
            &format!("'{sixteen}'"),
            &format!("*{sixteen}"),
            &format!("{sixteen}="),
            &format!("{sixteen} {sixteen}"),
            &format!("\"{sixteen}\\\""),
            &format!("\"{sixteen}\\n\""),
            &format!("\"{sixteen}\t\""),
            &format!("\"{sixteen}\u{7f}\""),
            &format!("\"{sixteen}é\""),
            &"x".repeat(129),
            &format!("\"{}\"", "x".repeat(129)),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
