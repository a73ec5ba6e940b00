//! The one form of every error that leaves otpost over HTTP: `application/problem+json` (RFC 9457).
//!
//! A problem says what kind of thing is wrong and where, never what was sent: no value, no member
//! name and no text of a library. The cause of a 5xx stays inside and is logged once.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

mod kinds;

pub use kinds::whole_seconds;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error on its way to the client; `exchange` writes its body, since that needs the request's
/// id.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: &'static Kind,
    errors: Vec<Finding>,
    parts: Option<Parts>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// How the parts of a process are, by their names.
pub type Parts = BTreeMap<&'static str, &'static str>;

/// What is wrong at one place of a request's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// Where: a JSON pointer in the form of a URI fragment.
    #[schema(example = "#/email")]
    pub pointer: &'static str,
    /// What, for programs.
    #[schema(example = "required")]
    pub code: &'static str,
    /// What, for people.
    #[schema(example = "must be there")]
    pub message: String,
}

/// An error: RFC 9457 problem details.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document<'a> {
    /// The kind of the problem as a URI; ends with `code`.
    #[schema(value_type = String, format = "uri", example = "urn:otpost:problem:not_found")]
    r#type: String,
    /// The kind of the problem for people; the same for every problem of this kind.
    title: &'a str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The kind of the problem for programs; stable.
    #[schema(pattern = "^[a-z_]+$")]
    code: &'a str,
    /// The same as `title`.
    message: &'a str,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
    /// What is wrong in the body, all at once.
    #[serde(skip_serializing_if = "<[Finding]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [Finding],
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    parts: Option<&'a Parts>,
    /// The id of this one HTTP request, by which it is found in the log.
    #[schema(
        format = "uri",
        example = "urn:otpost:request:5f3c9a4e7d21b8064c1ae95d37f2608b"
    )]
    instance: &'a str,
}

/// A kind of problem: what all problems of this kind have in common.
#[derive(Debug)]
struct Kind {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Option<&'static str>,
}

impl Kind {
    const fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self {
            status,
            code,
            title,
            detail: None,
        }
    }

    const fn detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }
}

impl Problem {
    fn new(kind: &'static Kind) -> Self {
        Self {
            kind,
            errors: Vec::new(),
            parts: None,
            headers: Vec::new(),
            cause: None,
        }
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with these headers, too.
    pub fn with_headers(mut self, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        self.headers.extend(headers);
        self
    }

    fn retry_after(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.kind.status
    }

    /// The kind of the problem.
    pub fn code(&self) -> &'static str {
        self.kind.code
    }

    /// The kind of the problem, for people.
    pub fn title(&self) -> &'static str {
        self.kind.title
    }

    /// The headers that belong to this problem.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Why otpost could not do its part; for the log only.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.cause.as_deref()
    }

    /// The body for the request of this id.
    pub fn document<'a>(&'a self, instance: &'a str) -> Document<'a> {
        Document {
            r#type: format!("urn:otpost:problem:{}", self.kind.code),
            title: self.kind.title,
            status: self.kind.status.as_u16(),
            code: self.kind.code,
            message: self.kind.title,
            detail: self.kind.detail,
            errors: &self.errors,
            parts: self.parts.as_ref(),
            instance,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.extend(self.headers.iter().cloned());
        response.extensions_mut().insert(self);
        response
    }
}
