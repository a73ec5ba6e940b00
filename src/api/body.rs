//! Strict reading of request bodies: one JSON object of texts, at most 8 KiB, in 5 seconds.
//!
//! Duplicate and unknown members are refused, an array never stands for an object, and all findings
//! are told at once. Nothing of what was sent is ever repeated, not even the name of a member, since
//! a code may stand anywhere in a mistaken request.

use std::fmt::{self, Display};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::problem::{Finding, Problem};

/// The most bytes that a body can have; a valid one has less than 2 KiB.
pub const BODY_BYTES: usize = 8 * 1024;
/// How long a body may take.
pub const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// The members of a request's body, until somebody has asked for all of them.
#[derive(Debug)]
pub struct Members {
    entries: Vec<(String, Member)>,
    findings: Vec<Finding>,
}

/// The value of a member; every valid one is a text.
#[derive(Debug)]
enum Member {
    Text(String),
    Other,
}

impl<S: Send + Sync> FromRequest<S> for Members {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if request.uri().query().is_some() {
            return Err(Problem::query_not_allowed());
        }
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type());
        }
        let body = read(request.into_body()).await?;
        Self::parse(&body)
    }
}

impl Members {
    /// Reads the text of a body.
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let entries = serde_json::from_slice::<Entries>(body).map_err(|error| {
            if error.is_data() {
                Problem::invalid_request(vec![finding("#", "not_an_object", "must be an object")])
            } else {
                Problem::malformed_json()
            }
        })?;
        Ok(Self {
            entries: entries.0,
            findings: Vec::new(),
        })
    }

    /// The member at `pointer`, which must be there.
    pub fn required<T, E: Display>(
        &mut self,
        pointer: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let mistakes_before = self.findings.len();
        let value = self.optional(pointer, parse);
        if value.is_none() && self.findings.len() == mistakes_before {
            self.note(pointer, "required", "must be there");
        }
        value
    }

    /// The member at `pointer`, if it is there.
    pub fn optional<T, E: Display>(
        &mut self,
        pointer: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let name = pointer.trim_start_matches("#/");
        let mut found: Vec<Member> = self
            .entries
            .extract_if(.., |(entry, _)| entry == name)
            .map(|(_, member)| member)
            .collect();
        let member = found.pop()?;
        if !found.is_empty() {
            self.note(pointer, "duplicate", "must be there only once");
            return None;
        }
        let Member::Text(text) = member else {
            self.note(pointer, "not_a_text", "must be a text");
            return None;
        };
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(pointer, "invalid", &error.to_string());
                None
            }
        }
    }

    /// Ends the reading: `value` holds if every member was good and nothing is left over.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Problem> {
        if !self.entries.is_empty() {
            self.note(
                "#",
                "unknown_member",
                "must have no members but those of this endpoint",
            );
        }
        match value {
            Some(value) if self.findings.is_empty() => Ok(value),
            _ => Err(Problem::invalid_request(self.findings)),
        }
    }

    fn note(&mut self, pointer: &'static str, code: &'static str, message: &str) {
        self.findings.push(finding(pointer, code, message));
    }
}

fn finding(pointer: &'static str, code: &'static str, message: &str) -> Finding {
    Finding {
        pointer,
        code,
        message: message.to_owned(),
    }
}

/// Whether the headers announce plain JSON: one `application/json`, its charset absent or UTF-8,
/// not compressed. Anything more lenient lets a page of another site send it without a preflight.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else {
        return false;
    };
    let Ok(value) = only.to_str() else {
        return false;
    };
    let mut parts = value.split(';').map(|part| part.trim_matches([' ', '\t']));
    let is_json = parts
        .next()
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"));
    let mut parameters = parts.filter(|part| !part.is_empty());
    let charset_is_right = parameters.next().is_none_or(|parameter| {
        ["charset=utf-8", "charset=\"utf-8\""]
            .iter()
            .any(|known| parameter.eq_ignore_ascii_case(known))
    });
    is_json
        && charset_is_right
        && parameters.next().is_none()
        && !headers.contains_key(CONTENT_ENCODING)
}

/// Reads a body to its end. One that announces more than it may have is refused unread.
async fn read(body: Body) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(Problem::body_too_large());
    }
    let collected = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, BODY_BYTES).collect());
    match collected.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::body_too_large()),
        Ok(Err(_broke_off)) => Err(Problem::incomplete_body()),
        Err(_elapsed) => Err(Problem::request_timeout()),
    }
}

/// The members of an object in their order, duplicates included.
struct Entries(Vec<(String, Member)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_u64<E>(self, _value: u64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Member, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Member, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }
}
