//! `GET /`: a small page for whoever opens the service in a browser. It has no script and loads
//! nothing.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::Api;

/// The look of the pages.
pub const STYLE: &str = include_str!("page.css");

/// Greets a browser and shows how the endpoints are called: where they are configured to be, or
/// where this request found them.
pub async fn landing(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let base = if api.public_url.is_empty() {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        format!("http://{}", host.unwrap_or("localhost"))
    } else {
        api.public_url.trim_end_matches('/').to_owned()
    };
    let mailbox = match api.development {
        Some(_) => include_str!("landing_mailbox.html"),
        None => "",
    };
    let body = include_str!("landing.html")
        .replace("{{base}}", &escape(&base))
        .replace("{{mailbox}}", mailbox);
    let policy = format!("style-src '{}'", source_hash(STYLE));
    html("otpost", &body, "", &policy)
}

/// A whole page under a content security policy that allows nothing but what `sources` names.
/// `body` must be escaped already.
pub fn html(title: &str, body: &str, script: &str, sources: &str) -> Response {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}",
        escape(title)
    );
    if !script.is_empty() {
        let _ = writeln!(page, "<script>{script}</script>");
    }
    page.push_str("</body>\n</html>\n");
    let policy = format!(
        "default-src 'none'; {sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, page).into_response()
}

/// The name under which a content security policy allows an inline script or style.
pub fn source_hash(source: &str) -> String {
    format!("sha256-{}", BASE64.encode(&Sha256::digest(source)))
}

/// Makes a text harmless inside an element and inside a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
