//! The kinds of problems, by their status.

use std::error::Error;
use std::time::Duration;

use axum::http::header::{ALLOW, CONNECTION, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};

use super::{Finding, Kind, Parts, Problem};

/// Seconds after which a store or queue that did not answer may be back.
const RETRY_SOON: u32 = 2;
/// Seconds after which a full queue may have room again.
const RETRY_WHEN_WORKED_OFF: u32 = 30;

const UNAVAILABLE: Kind = Kind::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "service_unavailable",
    "The service is not available right now",
);

impl Problem {
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

    /// 400: the idempotency key is in another form than one string.
    pub fn idempotency_key_malformed() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::BAD_REQUEST,
            "idempotency_key_malformed",
            "The header `Idempotency-Key` is not valid",
        )
        .detail("Send it once, with 16 to 128 printable ASCII characters in double quotes.");
        Self::new(&KIND)
    }

    /// 409: the request that this one repeats may still be under way.
    pub fn idempotency_key_in_flight(wait: Duration) -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::CONFLICT,
            "idempotency_key_in_flight",
            "A request with this key is under way",
        );
        Self::new(&KIND).retry_after(whole_seconds(wait))
    }

    /// 422: the idempotency key belongs to a request that said something else.
    pub fn idempotency_key_reused() -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "The key belongs to another request",
        )
        .detail("Draw a fresh `Idempotency-Key` for every request that is no repetition.");
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

    /// 429: the client has had its share.
    pub fn client_limit_reached(seconds: u32) -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::TOO_MANY_REQUESTS,
            "client_limit_reached",
            "Too many requests from this client",
        )
        .detail(
            "What it may do is in `RateLimit-Policy`, what is left of it in `RateLimit`. If nothing \
             there is spent, the wider network around it has had its share.",
        );
        Self::new(&KIND).retry_after(seconds)
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

    /// 503: the service has accepted all the requests that it may in a minute.
    pub fn global_budget_spent(wait: Duration) -> Self {
        const KIND: Kind = Kind::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "global_budget_spent",
            "Too many codes are asked for at the moment",
        );
        Self::new(&KIND).retry_after(whole_seconds(wait))
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
}

/// Rounded up, since who comes back too early is refused.
pub fn whole_seconds(span: Duration) -> u32 {
    u32::try_from(span.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// Rounded up to the next ten seconds.
fn coarse_seconds(wait: Duration) -> u32 {
    let tens = wait.as_millis().div_ceil(10_000);
    u32::try_from(tens).map_or(u32::MAX, |tens| tens.saturating_mul(10))
}
