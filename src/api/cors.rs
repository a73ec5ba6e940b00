//! Cross-origin requests: pages of the listed origins may call the endpoints, and nobody
//! else's. Off without a list. Origins are compared whole and byte by byte; `null` and `*` are none.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;

/// Seconds for which a browser need not ask again, and so may go on after an origin was dropped.
const MAX_AGE: u32 = 600;
/// The headers of answers that pages may read, beside those that every page may.
const EXPOSED: &str = "location, ratelimit, ratelimit-policy, retry-after";

/// Which pages may call. The default is none, as if there were no such thing as CORS.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Vec<String>,
    asks_for_key: bool,
}

/// What is to be said to a page about one request.
#[derive(Default)]
pub struct Crossing {
    varies: bool,
    origin: Option<HeaderValue>,
    preflight: Option<Endpoint>,
}

/// What an endpoint takes from a page.
#[derive(Clone, Copy)]
struct Endpoint {
    methods: &'static str,
    headers: &'static str,
}

impl Cors {
    /// `asks_for_key` says whether the endpoints take the headers of callers with an API key.
    pub fn new(origins: Vec<String>, asks_for_key: bool) -> Self {
        Self {
            origins,
            asks_for_key,
        }
    }

    /// Looks at a request on its way in.
    pub fn examine(&self, route: Option<&str>, request: &Request) -> Crossing {
        if self.origins.is_empty() {
            return Crossing::default();
        }
        let headers = request.headers();
        let endpoint = route.and_then(|route| self.endpoint(route));
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        Crossing {
            varies: true,
            origin: endpoint.and_then(|_endpoint| self.listed_origin(headers)),
            preflight: endpoint.filter(|_endpoint| is_preflight),
        }
    }

    fn endpoint(&self, route: &str) -> Option<Endpoint> {
        let (methods, headers) = match (route, self.asks_for_key) {
            ("/otp/generate" | "/otp/verify", true) => (
                "POST",
                "authorization, content-type, idempotency-key, otpost-client-ip",
            ),
            ("/otp/generate" | "/otp/verify", false) => ("POST", "content-type, idempotency-key"),
            ("/otp/requests/{id}", true) => ("GET, HEAD", "authorization, otpost-client-ip"),
            ("/otp/requests/{id}", false) => ("GET, HEAD", ""),
            _ => return None,
        };
        Some(Endpoint { methods, headers })
    }

    fn listed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut values = headers.get_all(ORIGIN).iter();
        let (Some(only), None) = (values.next(), values.next()) else {
            return None;
        };
        let is_listed = |origin: &String| origin.as_bytes() == only.as_bytes();
        self.origins.iter().any(is_listed).then(|| only.clone())
    }
}

impl Crossing {
    /// The whole answer, if the request only asks whether another one would be allowed. That needs
    /// no API key, since browsers ask without one.
    pub fn preflight(&self) -> Option<Response> {
        let endpoint = self.preflight?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        if self.origin.is_some() {
            let headers = response.headers_mut();
            let methods = HeaderValue::from_static(endpoint.methods);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            if !endpoint.headers.is_empty() {
                let names = HeaderValue::from_static(endpoint.headers);
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE));
        }
        Some(response)
    }

    /// Marks the answer. It varies with the origin even where the origin was of no use.
    pub fn mark(self, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if self.preflight.is_none() {
                let exposed = HeaderValue::from_static(EXPOSED);
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            }
        }
    }
}
