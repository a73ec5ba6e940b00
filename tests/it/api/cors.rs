//! Pages of other origins: the listed ones may call, all others are told nothing.

use otpost::otp::api_key::ApiKeyHash;

use super::{Answer, Bench};

const ORIGIN: &str = "https://app.example.com";
const STATUS: &str = "/otp/requests/raebagbafaydqqcikbmga2dqpca";
const ALLOWING: [&str; 6] = [
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-allow-credentials",
    "access-control-expose-headers",
    "access-control-max-age",
];

fn bench() -> Bench {
    Bench::refusing_but(|api| {
        api.cors_origins = vec![ORIGIN.to_owned(), "http://localhost:3000".to_owned()];
    })
}

/// Origins that are not listed, however much they look like one that is.
fn strangers() -> Vec<&'static str> {
    vec![
        "",
        "null",
        "*",
        "https://app.example.com.evil.example",
        "https://evil.example/https://app.example.com",
        "https://evilapp.example.com",
        "https://app.example.co",
        "https://app.example.comm",
        "https://sub.app.example.com",
        "https://example.com",
        "https://app.example.com:443",
        "https://app.example.com:8443",
        "https://app.example.com/",
        "https://app.example.com.",
        "http://app.example.com",
        "HTTPS://APP.EXAMPLE.COM",
        "https://app.example.com https://evil.example",
        "https://app.example.com, https://app.example.com",
        "https://user@app.example.com",
        "http://localhost",
        "http://localhost:30000",
        "http://127.0.0.1:3000",
        "app.example.com",
    ]
}

async fn preflight(bench: &Bench, path: &str, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-evil"),
    ];
    bench.send("OPTIONS", path, &headers, "").await
}

fn assert_tells_nothing(answer: &Answer, why: &str) {
    for name in ALLOWING {
        assert!(!answer.headers.contains_key(name), "{name}: {why}");
    }
}

#[tokio::test]
async fn a_listed_origin_is_told_what_the_endpoint_takes() {
    let bench = bench();
    for (path, methods, headers) in [
        ("/otp/generate", "POST", "content-type, idempotency-key"),
        ("/otp/verify", "POST", "content-type, idempotency-key"),
        (STATUS, "GET, HEAD", ""),
    ] {
        for origin in [ORIGIN, "http://localhost:3000"] {
            let answer = preflight(&bench, path, origin).await;
            assert_eq!(answer.status, 204, "{path}");
            assert!(answer.body.is_empty());
            assert_eq!(answer.header("access-control-allow-origin"), origin);
            assert_eq!(answer.header("access-control-allow-methods"), methods);
            assert_eq!(answer.header("access-control-allow-headers"), headers);
            assert_eq!(answer.header("access-control-max-age"), "600");
            assert_eq!(answer.header("vary"), "origin");
            let name = "access-control-allow-credentials";
            assert!(!answer.headers.contains_key(name));
            answer.assert_secured();
        }
    }
    bench.assert_untouched();
}

#[tokio::test]
async fn a_preflight_needs_no_key_and_tells_of_the_headers_of_those_who_have_one() {
    let bench = Bench::refusing_but(|api| {
        api.cors_origins = vec![ORIGIN.to_owned()];
        api.gate.api_keys = vec![ApiKeyHash::of(b"otpost_abc")];
    });
    for (path, headers) in [
        (
            "/otp/generate",
            "authorization, content-type, idempotency-key, otpost-client-ip",
        ),
        (STATUS, "authorization, otpost-client-ip"),
    ] {
        let answer = preflight(&bench, path, ORIGIN).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-headers"), headers);
    }
    let answer = bench.send("GET", STATUS, &[("origin", ORIGIN)], "").await;
    answer.problem(401, "unauthorized");
    assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
}

#[tokio::test]
async fn the_answers_themselves_can_be_read_by_a_listed_origin_even_when_they_are_errors() {
    let bench = bench();
    let json = ("content-type", "application/json");
    let body = r#"{"email":"ada@example.org","otp":"012345"}"#;
    for (method, path, headers, body, status) in [
        (
            "POST",
            "/otp/generate",
            &[json][..],
            r#"{"email":"ada@example.org"}"#,
            202,
        ),
        ("POST", "/otp/verify", &[json], body, 422),
        ("POST", "/otp/verify", &[json], "{", 400),
        ("POST", "/otp/verify", &[], body, 415),
        ("PUT", "/otp/verify", &[], "", 405),
        ("OPTIONS", "/otp/verify", &[], "", 405),
        ("GET", STATUS, &[], "", 404),
    ] {
        let headers = [headers, &[("origin", ORIGIN)]].concat();
        let answer = bench.send(method, path, &headers, body).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
        let exposed = answer.header("access-control-expose-headers");
        assert_eq!(
            exposed,
            "location, ratelimit, ratelimit-policy, retry-after"
        );
        assert_eq!(answer.header("vary"), "origin");
    }
}

#[tokio::test]
async fn an_origin_that_is_not_listed_is_told_nothing() {
    let bench = bench();
    for origin in strangers() {
        let answer = preflight(&bench, "/otp/generate", origin).await;
        assert_eq!(answer.status, 204, "{origin}");
        assert_tells_nothing(&answer, origin);
        assert_eq!(answer.header("vary"), "origin");
        let answer = bench.send("GET", STATUS, &[("origin", origin)], "").await;
        assert_tells_nothing(&answer, origin);
        assert_eq!(answer.header("vary"), "origin");
    }
    let twice = [("origin", ORIGIN), ("origin", ORIGIN)];
    let answer = bench.send("GET", STATUS, &twice, "").await;
    assert_tells_nothing(&answer, "two origins");
}

#[tokio::test]
async fn every_answer_varies_with_the_origin_as_soon_as_any_is_listed() {
    let bench = bench();
    let endless = format!("/{}", "a".repeat(2_048));
    for path in ["/", "/openapi.json", "/nothing", STATUS, &endless] {
        let answer = bench.get(path).await;
        assert_eq!(answer.header("vary"), "origin", "{path}");
        assert_tells_nothing(&answer, path);
    }
}

#[tokio::test]
async fn what_is_no_endpoint_is_no_business_of_other_origins() {
    let bench = bench();
    for path in ["/", "/openapi.json", "/nothing", "/otp", "/dev/mailbox"] {
        let answer = preflight(&bench, path, ORIGIN).await;
        assert!(matches!(answer.status.as_u16(), 404 | 405), "{path}");
        assert_tells_nothing(&answer, path);
    }
}

#[tokio::test]
async fn without_a_list_there_is_no_such_thing() {
    let bench = Bench::refusing();
    for origin in [ORIGIN, "null", "*"] {
        let answer = preflight(&bench, "/otp/generate", origin).await;
        answer.problem(405, "method_not_allowed");
        assert_tells_nothing(&answer, origin);
        assert!(!answer.headers.contains_key("vary"));
    }
}
