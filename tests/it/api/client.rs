//! Whom the endpoints take for their client. What counts in the headers of proxies is shown beside
//! the parser; here it is shown that the right header gets there.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use otpost::api::client::{Client, Gate, identify};
use otpost::api::server::Peer;
use otpost::config::ForwardedHeader;
use otpost::otp::api_key::ApiKeyHash;
use otpost::otp::network::Network;

use super::{Answer, Bench};

const PROXY: &str = "10.0.0.1:4711";
const CLIENT: &str = "203.0.113.7";
const KEY: (&str, &str) = ("authorization", "Bearer otpost_abc");

fn behind_proxies(forwarded_header: ForwardedHeader) -> Gate {
    Gate {
        trusted_proxies: vec![Network::parse("10.0.0.0/8").unwrap()],
        forwarded_header,
        ..Gate::default()
    }
}

fn asking_for_keys() -> Gate {
    Gate {
        api_keys: vec![ApiKeyHash::of(b"otpost_abc")],
        ..behind_proxies(ForwardedHeader::XForwardedFor)
    }
}

async fn ask(gate: Gate, peer: &str, headers: &[(&str, &str)]) -> Answer {
    let tell = |client: Client, headers: HeaderMap| async move {
        assert!(!headers.contains_key("authorization"), "the key stays here");
        let address = client.address.map(|address| address.to_string());
        format!(
            "{} {}",
            address.unwrap_or_default(),
            client.api_key.is_some()
        )
    };
    let gate = from_fn_with_state(Arc::new(gate), identify);
    let router = Router::new().route("/", get(tell)).route_layer(gate);
    let mut request = Request::new(Body::empty());
    for (name, value) in headers {
        let name: axum::http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let peer: SocketAddr = peer.parse().unwrap();
    request.extensions_mut().insert(Peer(peer));
    Answer::of(&router, request).await
}

async fn told(gate: Gate, peer: &str, headers: &[(&str, &str)]) -> String {
    ask(gate, peer, headers).await.text().to_owned()
}

#[tokio::test]
async fn by_default_the_peer_is_the_client_whatever_it_says() {
    let headers = [
        ("x-forwarded-for", CLIENT),
        ("forwarded", "for=203.0.113.7"),
        ("x-real-ip", CLIENT),
        ("otpost-client-ip", CLIENT),
    ];
    let gate = Gate::default;
    assert_eq!(told(gate(), PROXY, &headers).await, "10.0.0.1 false");
    let mapped = "[::ffff:10.0.0.1]:1";
    assert_eq!(told(gate(), mapped, &headers).await, "10.0.0.1 false");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_in_the_one_configured_header() {
    use ForwardedHeader::{Forwarded, XForwardedFor};
    let both = [
        ("x-forwarded-for", "198.51.100.1"),
        ("forwarded", "for=198.51.100.2"),
        ("x-real-ip", "198.51.100.3"),
    ];
    for (header, expected) in [
        (XForwardedFor, "198.51.100.1 false"),
        (Forwarded, "198.51.100.2 false"),
    ] {
        let gate = || behind_proxies(header);
        assert_eq!(told(gate(), PROXY, &both).await, expected);
        let stranger = "198.51.100.9:1";
        assert_eq!(told(gate(), stranger, &both).await, "198.51.100.9 false");
    }
    let other_only = told(behind_proxies(XForwardedFor), PROXY, &both[1..]).await;
    assert_eq!(other_only, "10.0.0.1 false");
    let lines = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("x-forwarded-for", CLIENT),
        ("X-FORWARDED-FOR", "10.0.0.2"),
    ];
    let joined = told(behind_proxies(XForwardedFor), PROXY, &lines).await;
    assert_eq!(joined, "203.0.113.7 false");
}

#[tokio::test]
async fn an_application_with_a_key_may_name_its_client() {
    for (named, expected) in [
        ("203.0.113.7", "203.0.113.7 true"),
        ("::ffff:203.0.113.7", "203.0.113.7 true"),
        ("2001:DB8::7", "2001:db8::7 true"),
    ] {
        let headers = [KEY, ("otpost-client-ip", named)];
        let answer = told(asking_for_keys(), PROXY, &headers).await;
        assert_eq!(answer.trim(), expected, "{named}");
    }
    let headers = [KEY, ("x-forwarded-for", CLIENT)];
    let unnamed = told(asking_for_keys(), PROXY, &headers).await;
    assert_eq!(unnamed, " true", "limits of clients are not for it");
}

#[tokio::test]
async fn a_client_that_an_application_gets_wrong_is_no_client_without_limits() {
    let bench = Bench::refusing_but(|api| api.gate = asking_for_keys());
    let named = |value| ("otpost-client-ip", value);
    for wrong in [
        &[named("")][..],
        &[named("unknown")],
        &[named("203.0.113.7:80")],
        &[named("[2001:db8::7]")],
        &[named("203.0.113.7, 203.0.113.8")],
        &[named("203.0.113.07")],
        &[named("203.0.113.0/24")],
        &[named("fe80::1%eth0")],
        &[named(CLIENT), named(CLIENT)],
    ] {
        let headers = [&[KEY, ("content-type", "application/json")], wrong].concat();
        for (method, path) in [
            ("POST", "/otp/generate"),
            ("POST", "/otp/verify"),
            ("GET", "/otp/requests/raebagbafaydqqcikbmga2dqpca"),
        ] {
            let answer = bench.send(method, path, &headers, "{").await;
            answer.problem(400, "invalid_client_ip");
            let told = answer.without_instance();
            assert!(!told.contains("203"), "{told}");
        }
    }
    bench.assert_untouched();
}

#[tokio::test]
async fn without_keys_nobody_may_name_a_client_and_nobody_is_refused_for_it() {
    let bench = Bench::new();
    let headers = [
        ("content-type", "application/json"),
        ("otpost-client-ip", "nonsense"),
        ("authorization", "Bearer nonsense"),
    ];
    let body = r#"{"email":"ada@example.org"}"#;
    let answer = bench.send("POST", "/otp/generate", &headers, body).await;
    assert_eq!(answer.status, 202);
}
