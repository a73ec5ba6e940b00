//! `/dev/mailbox`: the mails of development mode, for the developer at this machine and nobody else.
//!
//! Codes stand here in clear, so that a request from anywhere else gets the answer of a path that
//! does not exist: a peer that is not loopback, a foreign `Host` or `Origin` (DNS rebinding), or
//! anything that came through a proxy, as far as a proxy says so.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use serde_json::Value;

use super::page::{escape, html, source_hash};
use super::problem::Problem;
use super::server::Peer;
use super::{Api, exchange};

const SCRIPT: &str = include_str!("mailbox.js");
/// Headers by which proxies tell of themselves, beside all those that begin with `x-forwarded`.
const PROXY_HEADERS: [&str; 10] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-original-host",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "x-envoy-external-address",
];

/// What development mode adds.
#[derive(Clone)]
pub struct Development {
    /// Lists the mails, newest first, each as `{"id","to","subject","text","html","received"}`.
    pub messages: Arc<dyn Fn() -> Value + Send + Sync>,
}

/// Proof that a request came from this machine, for this machine, and only reads.
pub struct Local;

impl<S: Send + Sync> FromRequestParts<S> for Local {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        if !is_local(parts) {
            return Err(Problem::not_found());
        }
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(Problem::method_not_allowed_but("GET,HEAD"));
        }
        Ok(Self)
    }
}

/// `GET /dev/mailbox/messages`.
pub async fn messages(_: Local, State(api): State<Arc<Api>>) -> Response {
    exchange::json(StatusCode::OK, &stored(&api))
}

/// `GET /dev/mailbox`. The mail's HTML needs its inline styles; no other source is open to it, and
/// its frame runs no script.
pub async fn mailbox(_: Local, State(api): State<Arc<Api>>) -> Response {
    let sources = format!(
        "style-src 'unsafe-inline'; script-src '{}'; connect-src 'self'",
        source_hash(SCRIPT)
    );
    html("otpost mailbox", &list(&stored(&api)), SCRIPT, &sources)
}

fn stored(api: &Api) -> Value {
    let development = api.development.as_ref();
    development.map_or_else(|| Value::Array(Vec::new()), |found| (found.messages)())
}

fn is_local(parts: &Parts) -> bool {
    let is_loopback = parts
        .extensions
        .get::<Peer>()
        .is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    let Some(host) = only(&parts.headers, HOST.as_str()) else {
        return false;
    };
    let target_is_host = parts
        .uri
        .authority()
        .is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host));
    let is_own_origin = |origin: &str| {
        origin
            .strip_prefix("http://")
            .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    let origin_is_host = !parts.headers.contains_key(ORIGIN)
        || only(&parts.headers, ORIGIN.as_str()).is_some_and(is_own_origin);
    is_loopback
        && is_local_name(host)
        && target_is_host
        && origin_is_host
        && !is_forwarded(&parts.headers)
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether a `Host` names this machine, on whatever port.
fn is_local_name(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        let Some((head, rest)) = host.split_at_checked(name.len()) else {
            return false;
        };
        let is_port = |port: &str| {
            (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
        };
        head.eq_ignore_ascii_case(name)
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
    })
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        name.as_str().starts_with("x-forwarded") || PROXY_HEADERS.contains(&name.as_str())
    })
}

/// The mails as HTML; every text of a mail is escaped.
fn list(messages: &Value) -> String {
    let messages = messages.as_array().map_or(&[][..], Vec::as_slice);
    let mut body = String::from(
        "<main>\n<h1>Mailbox</h1>\n<p class=\"dim\">Development mode: these mails were not sent. \
         New ones appear here by themselves; \
         <a href=\"/dev/mailbox/messages\">as JSON</a>.</p>\n<div id=\"mails\">\n",
    );
    if messages.is_empty() {
        body.push_str(
            "<p class=\"note\" id=\"none\">No mail yet. Ask for a code, and it will be here.</p>\n",
        );
    }
    for message in messages {
        show(&mut body, message);
    }
    body.push_str("</div>\n</main>\n");
    body
}

fn show(body: &mut String, message: &Value) {
    let member = |name: &str| match &message[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let (text, markup) = (member("text"), member("html"));
    let _ = write!(
        body,
        "<article id=\"mail-{}\">\n<header class=\"dim\"><span>to {}</span><time>{}</time></header>\n<h2>{}</h2>\n",
        escape(&member("id")),
        escape(&member("to")),
        escape(&member("received")),
        escape(&member("subject")),
    );
    if let Some(code) = find_code(&text) {
        let _ = writeln!(body, "<output class=\"code\">{code}</output>");
    }
    let _ = writeln!(body, "<pre>{}</pre>", escape(&text));
    if !markup.is_empty() {
        let _ = writeln!(
            body,
            "<details><summary>HTML part</summary><iframe sandbox=\"\" title=\"HTML part\" \
             srcdoc=\"{}\"></iframe></details>",
            escape(&markup),
        );
    }
    body.push_str("</article>\n");
}

/// The first word of a mail that looks like a code.
fn find_code(text: &str) -> Option<&str> {
    text.split(|character: char| !character.is_alphanumeric())
        .find(|word| {
            (6..=8).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(is_local_name(host), "{host}");
        }
        for host in [
            "",
            "localhost.",
            "localhost.evil.example",
            "evil.example",
            "localhost:",
            "localhost:x",
            "localhost:123456",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "::1",
            "[::1",
            "user@localhost",
            "localhost:80@evil.example",
            "[::1]x",
            "ｌocalhost",
        ] {
            assert!(!is_local_name(host), "{host}");
        }
    }

    #[test]
    fn mails_are_shown_escaped_with_their_code() {
        let evil = "</pre><script>alert('1')</script> 123456";
        let page = list(&json!([{
            "id": "1", "to": evil, "subject": evil, "text": evil,
            "html": "<b style=\"color:red\">&amp;</b>", "received": evil,
        }]));
        assert!(!page.contains("<script"), "{page}");
        assert!(
            page.contains("<output class=\"code\">123456</output>"),
            "{page}"
        );
        assert!(
            page.contains("srcdoc=\"&lt;b style=&quot;color:red&quot;&gt;&amp;amp;"),
            "{page}"
        );
    }

    #[test]
    fn the_code_is_the_first_word_of_6_to_8_digits() {
        assert_eq!(
            find_code("Your code: 012345. It ends in 10 minutes."),
            Some("012345")
        );
        assert_eq!(
            find_code("12345 a123456 123456789 12345678"),
            Some("12345678")
        );
        assert_eq!(find_code("nothing"), None);
    }
}
