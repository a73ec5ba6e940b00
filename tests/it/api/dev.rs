//! The mailbox of development mode and who does not get to see it.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::Request;
use otpost::api::server::Peer;
use rstest::rstest;

use super::{Answer, Bench, mails};

const PATHS: [&str; 2] = ["/dev/mailbox", "/dev/mailbox/messages"];

/// A request from `peer` with these headers.
async fn ask(bench: &Bench, path: &str, peer: Option<&str>, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(peer) = peer {
        let peer: SocketAddr = peer.parse().unwrap();
        request = request.extension(Peer(peer));
    }
    Answer::of(&bench.router, request.body(Body::empty()).unwrap()).await
}

const LOOPBACK: Option<&str> = Some("127.0.0.1:50000");

#[rstest]
#[case("127.0.0.1:50000", &[("host", "localhost:8080")])]
#[case("127.8.9.1:50000", &[("host", "127.0.0.1")])]
#[case("[::1]:50000", &[("host", "[::1]:8080")])]
#[case("[::ffff:127.0.0.1]:50000", &[("host", "LOCALHOST")])]
#[case("127.0.0.1:50000", &[("host", "localhost:8080"), ("origin", "http://localhost:8080")])]
#[tokio::test]
async fn a_developer_at_this_machine_sees_the_mails(
    #[case] peer: &str,
    #[case] headers: &[(&str, &str)],
) {
    let bench = Bench::in_development();
    let answer = ask(&bench, PATHS[1], Some(peer), headers).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), mails());
    answer.assert_secured();
    let answer = ask(&bench, PATHS[0], Some(peer), headers).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(
        answer
            .text()
            .contains("<output class=\"code\">012345</output>")
    );
    answer.assert_secured();
}

#[rstest]
#[case::foreign_host(LOOPBACK, &[("host", "evil.example")])]
#[case::rebound_host(LOOPBACK, &[("host", "localhost.evil.example:8080")])]
#[case::machine_address(LOOPBACK, &[("host", "192.168.1.2:8080")])]
#[case::no_host(LOOPBACK, &[])]
#[case::two_hosts(LOOPBACK, &[("host", "localhost"), ("host", "localhost")])]
#[case::foreign_origin(LOOPBACK, &[("host", "localhost"), ("origin", "http://evil.example")])]
#[case::null_origin(LOOPBACK, &[("host", "localhost"), ("origin", "null")])]
#[case::other_port(LOOPBACK, &[("host", "localhost:1"), ("origin", "http://localhost:2")])]
#[case::two_origins(
    LOOPBACK,
    &[("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://localhost")]
)]
#[case::forwarded(LOOPBACK, &[("host", "localhost"), ("forwarded", "for=127.0.0.1")])]
#[case::forwarded_for(LOOPBACK, &[("host", "localhost"), ("x-forwarded-for", "127.0.0.1")])]
#[case::forwarded_host(LOOPBACK, &[("host", "localhost"), ("x-forwarded-host", "localhost")])]
#[case::forwarded_proto(LOOPBACK, &[("host", "localhost"), ("x-forwarded-proto", "https")])]
#[case::forwarded_empty(LOOPBACK, &[("host", "localhost"), ("x-forwarded-port", "")])]
#[case::real_ip(LOOPBACK, &[("host", "localhost"), ("x-real-ip", "127.0.0.1")])]
#[case::via(LOOPBACK, &[("host", "localhost"), ("via", "1.1 proxy")])]
#[case::lan_peer(Some("192.168.1.2:50000"), &[("host", "localhost")])]
#[case::public_peer(Some("[2001:db8::1]:50000"), &[("host", "localhost")])]
#[case::unspecified_peer(Some("0.0.0.0:50000"), &[("host", "localhost")])]
#[case::unknown_peer(None, &[("host", "localhost")])]
#[tokio::test]
async fn nobody_else_can_tell_that_there_is_a_mailbox(
    #[case] peer: Option<&str>,
    #[case] headers: &[(&str, &str)],
) {
    let bench = Bench::in_development();
    let nowhere = ask(&bench, "/dev/nothing", peer, headers).await;
    for path in PATHS {
        let answer = ask(&bench, path, peer, headers).await;
        answer.problem(404, "not_found");
        assert_eq!(answer.without_instance(), nowhere.without_instance());
        let names = |answer: &Answer| -> Vec<String> {
            answer.headers.keys().map(ToString::to_string).collect()
        };
        assert_eq!(names(&answer), names(&nowhere));
    }
}

#[tokio::test]
async fn a_foreign_caller_learns_nothing_by_other_methods_either() {
    let bench = Bench::in_development();
    for path in PATHS {
        for method in ["POST", "OPTIONS", "DELETE", "HEAD"] {
            let headers = [("host", "evil.example")];
            let answer = bench.send(method, path, &headers, "").await;
            assert_eq!(answer.status, 404, "{method} {path}");
            assert!(!answer.headers.contains_key("allow"));
        }
        let headers = [("host", "localhost")];
        let answer = bench.send("POST", path, &headers, "").await;
        answer.problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "GET,HEAD");
    }
}

#[tokio::test]
async fn a_target_with_another_name_than_host_is_foreign() {
    let bench = Bench::in_development();
    let headers = [("host", "localhost")];
    let answer = ask(
        &bench,
        "http://evil.example/dev/mailbox",
        LOOPBACK,
        &headers,
    )
    .await;
    answer.problem(404, "not_found");
    let answer = ask(&bench, "http://localhost/dev/mailbox", LOOPBACK, &headers).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn outside_development_mode_there_is_no_mailbox() {
    let bench = Bench::new();
    let headers = [("host", "localhost")];
    let nowhere = ask(&bench, "/nothing", LOOPBACK, &headers).await;
    for path in PATHS {
        let answer = ask(&bench, path, LOOPBACK, &headers).await;
        answer.problem(404, "not_found");
        assert_eq!(answer.without_instance(), nowhere.without_instance());
        let answer = bench.send("POST", path, &headers, "").await;
        answer.problem(404, "not_found");
    }
}

#[tokio::test]
async fn the_page_runs_its_own_script_and_no_other() {
    let bench = Bench::in_development();
    let answer = ask(&bench, PATHS[0], LOOPBACK, &[("host", "localhost")]).await;
    let page = answer.text();
    let (_, script) = page.split_once("<script>").unwrap();
    let (script, rest) = script.split_once("</script>").unwrap();
    assert!(!rest.contains("<script"));
    let hash = otpost::api::page::source_hash(script);
    let policy = answer.header("content-security-policy");
    assert!(policy.contains(&format!("script-src '{hash}'")), "{policy}");
    assert!(page.contains("<iframe sandbox=\"\""));
}
