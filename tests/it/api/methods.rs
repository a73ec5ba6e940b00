//! What is refused by path, query or method.

use super::Bench;

const ID: &str = "raebagbafaydqqcikbmga2dqpca";

#[tokio::test]
async fn a_query_string_is_refused_where_addresses_and_codes_go() {
    let bench = Bench::new();
    let body = r#"{"email":"ada@example.org","otp":"012345"}"#;
    for path in [
        "/otp/verify?otp=012345".to_owned(),
        "/otp/verify?".to_owned(),
        "/otp/generate?email=ada@example.org".to_owned(),
    ] {
        let answer = bench.post(&path, body).await;
        answer.problem(400, "query_not_allowed");
    }
    let answer = bench.get(&format!("/otp/requests/{ID}?x=1")).await;
    answer.problem(400, "query_not_allowed");
    assert!(bench.store.verifies.lock().unwrap().is_empty());
    assert!(bench.queue.jobs.lock().unwrap().is_empty());
}

/// Registered ones, those of other protocols, and no words at all.
const METHODS: [&str; 42] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "SEARCH",
    "QUERY",
    "REPORT",
    "MERGE",
    "CHECKOUT",
    "ACL",
    "BIND",
    "LINK",
    "UNLINK",
    "PURGE",
    "BAN",
    "PRI",
    "NOTIFY",
    "SUBSCRIBE",
    "M-SEARCH",
    "MKCALENDAR",
    "SOURCE",
    "DEBUG",
    "TRACK",
    "INVOKE",
    "get",
    "post",
    "Post",
    "X",
    "_",
    "!#$%&'*+-.^`|~",
];

#[tokio::test]
async fn other_methods_are_answered_with_those_that_there_are() {
    let bench = Bench::new();
    let status_path = format!("/otp/requests/{ID}");
    let paths = [
        ("/otp/generate", "POST"),
        ("/otp/verify", "POST"),
        (status_path.as_str(), "GET,HEAD"),
        ("/openapi.json", "GET,HEAD"),
        ("/", "GET,HEAD"),
    ];
    for (path, allowed) in paths {
        for method in METHODS
            .iter()
            .filter(|method| allowed.split(',').all(|allowed| allowed != **method))
        {
            let answer = bench.send(method, path, &[], "").await;
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
            if *method != "HEAD" {
                answer.problem(405, "method_not_allowed");
            }
        }
    }
}

#[tokio::test]
async fn head_is_answered_like_get_without_a_body() {
    let bench = Bench::new();
    for path in ["/", "/openapi.json"] {
        let answer = bench.send("HEAD", path, &[], "").await;
        let whole = bench.get(path).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.is_empty());
        assert_eq!(
            answer.header("content-length"),
            whole.body.len().to_string()
        );
    }
}

#[tokio::test]
async fn an_endless_path_is_refused() {
    let bench = Bench::new();
    let path = format!("/{}", "a".repeat(2_048));
    bench.get(&path).await.problem(414, "uri_too_long");
    bench.get(&path[..2_048]).await.problem(404, "not_found");
}
