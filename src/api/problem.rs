//! The one form of every error that leaves otpost over HTTP: `application/problem+json` (RFC 9457).
//!
//! A problem says what kind of thing is wrong and where, never what was sent: no value, no member
//! name and no text of a library. The cause of a 5xx stays inside and is logged once.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Seconds after which a store or queue that did not answer may be back.
const RETRY_SOON: u32 = 2;
/// Seconds after which a full queue may have room again.
const RETRY_WHEN_WORKED_OFF: u32 = 30;

const UNAVAILABLE: Kind = Kind::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "service_unavailable",
    "The service is not available right now",
);

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

    /// 400: the body is not JSON, or more than one JSON text.
    pub fn malformed_json() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::BAD_REQUEST,
            "malformed_json",
            "The body is not valid JSON",
        )
        .detail(
            "Send one JSON object in UTF-8, without byte order mark and with nothing after it.",
        );
        Self::new(&KIND)
    }

    /// 400: the body broke off.
    pub fn incomplete_body() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::BAD_REQUEST,
            "incomplete_body",
            "The body did not arrive in full",
        );
        Self::new(&KIND)
    }

    /// 400: the body is JSON, but not what the endpoint takes.
    pub fn invalid_request(errors: Vec<Finding>) -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "The request is not valid",
        );
        Self {
            errors,
            ..Self::new(&KIND)
        }
    }

    /// 400: a query string where none belongs.
    pub fn query_not_allowed() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::BAD_REQUEST,
            "query_not_allowed",
            "This path takes no query string",
        )
        .detail("Addresses and codes belong into the body; what stands in a URL ends up in logs.");
        Self::new(&KIND)
    }

    /// 400: a caller with an API key names its client in another form than one IP address.
    pub fn invalid_client_ip() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::BAD_REQUEST,
            "invalid_client_ip",
            "The header `Otpost-Client-Ip` is not valid",
        )
        .detail("Send it once, with one IP address and nothing else, or leave it out.");
        Self::new(&KIND)
    }

    /// 401: the endpoint asks for an API key, and the caller has none that is listed.
    pub fn unauthorized() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "This needs a valid API key",
        )
        .detail("Send `Authorization: Bearer` with the API key, once.");
        let challenge = HeaderValue::from_static("Bearer realm=\"otpost\"");
        Self::new(&KIND).header(WWW_AUTHENTICATE, challenge)
    }

    /// 404: nothing here, or nothing that the caller may see.
    pub fn not_found() -> Self {
        const KIND: Kind = Kind::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here");
        Self::new(&KIND)
    }

    /// 405: the path is right, the method is not; the router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "This path does not take this method",
        );
        Self::new(&KIND)
    }

    /// 405 where the router does not know the methods.
    pub fn method_not_allowed_but(allow: &'static str) -> Self {
        Self::method_not_allowed().header(ALLOW, HeaderValue::from_static(allow))
    }

    /// 408: the body came too slowly.
    pub fn request_timeout() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "The body did not arrive in time",
        );
        Self::new(&KIND).header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// 413: the body is larger than any valid request.
    pub fn body_too_large() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "The body is too large",
        )
        .detail("A body may have 8192 bytes.");
        Self::new(&KIND)
    }

    /// 414: the request target is longer than any path that there is.
    pub fn uri_too_long() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::URI_TOO_LONG,
            "uri_too_long",
            "The URI is too long",
        );
        Self::new(&KIND)
    }

    /// 415: not JSON by its headers.
    pub fn unsupported_media_type() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body must be application/json",
        )
        .detail("Send `Content-Type: application/json` and no `Content-Encoding`.");
        Self::new(&KIND).header(
            HeaderName::from_static("accept-post"),
            HeaderValue::from_static("application/json"),
        )
    }

    /// 400: the head is not HTTP/1, or can be read in more than one way.
    pub fn malformed_request() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::BAD_REQUEST,
            "malformed_request",
            "The request is not well-formed HTTP",
        )
        .detail("Send HTTP/1.1 with one Host, and one Content-Length or Transfer-Encoding.");
        Self::new(&KIND)
    }

    /// 431: the head has too many bytes or fields.
    pub fn head_too_large() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "head_too_large",
            "The head of the request is too large",
        )
        .detail("A head may have 16384 bytes and 64 fields.");
        Self::new(&KIND)
    }

    /// 422: the code is not right, and nobody is told why.
    pub fn otp_incorrect() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "otp_incorrect",
            "OTP is incorrect",
        );
        Self::new(&KIND)
    }

    /// 429: the address has had its mails. It tells the wait, coarsely, and no counter, since who asks
    /// may not be whose address it is.
    pub fn too_many_requests(wait: Duration) -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "Too many requests for this address",
        )
        .detail("An earlier mail may still be on its way; its code counts.");
        Self::new(&KIND).retry_after(coarse_seconds(wait))
    }

    /// 500: otpost is at fault.
    pub fn internal_error(cause: impl Error + Send + Sync + 'static) -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "Something went wrong inside",
        );
        Self::new(&KIND).caused_by(cause)
    }

    /// 503: the store or the queue did not do its part; nothing may be taken as done.
    pub fn unavailable(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::new(&UNAVAILABLE)
            .retry_after(RETRY_SOON)
            .caused_by(cause)
    }

    /// 503: so many jobs wait that a mail would come too late.
    pub fn backlog_full(cause: impl Error + Send + Sync + 'static) -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "backlog_full",
            "Too many mails are waiting",
        );
        Self::new(&KIND)
            .retry_after(RETRY_WHEN_WORKED_OFF)
            .caused_by(cause)
    }

    /// 503: this process should get no requests now.
    pub fn not_ready(parts: Parts) -> Self {
        Self {
            parts: Some(parts),
            ..Self::new(&UNAVAILABLE).retry_after(RETRY_SOON)
        }
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
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

/// Rounded up to the next ten seconds.
fn coarse_seconds(wait: Duration) -> u32 {
    let tens = wait.as_millis().div_ceil(10_000);
    u32::try_from(tens).map_or(u32::MAX, |tens| tens.saturating_mul(10))
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
