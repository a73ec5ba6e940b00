//! Which bodies are read at all: their media type, their size, their time.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use rstest::rstest;
use tokio::time::Instant;

use super::Bench;

const VALID: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;

const JSON: &[&str] = &[
    "application/json",
    "Application/JSON",
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    "application/json ; charset=\"utf-8\"",
    "application/json;",
];

const NOT_JSON: &[&str] = &[
    "",
    " ",
    "json",
    "application",
    "application/",
    "/json",
    "application/jso",
    "application/json5",
    "application/jsonl",
    "application/json-seq",
    "application/ndjson",
    "application/problem+json",
    "application/vnd.api+json",
    "application/ld+json",
    "application/merge-patch+json",
    "application/xml",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/json",
    "text/plain",
    "text/plain; application/json",
    "text/html",
    "*/*",
    "application/*",
    "application/json, text/plain",
    "application/json; charset=latin1",
    "application/json; charset=utf-16",
    "application/json; charset=utf8",
    "application/json; charset",
    "application/json; charset=utf-8; charset=utf-8",
    "application/json; boundary=x",
    "application/json charset=utf-8",
    "application/json\u{e9}",
];

#[tokio::test]
async fn only_plain_json_is_a_content_type() {
    let bench = Bench::refusing();
    for good in JSON {
        let headers = [("content-type", *good)];
        let answer = bench.send("POST", "/otp/verify", &headers, VALID).await;
        assert_eq!(answer.status, 422, "{good}");
    }
    let bench = Bench::refusing();
    for bad in NOT_JSON {
        let headers = [("content-type", *bad)];
        let answer = bench.send("POST", "/otp/verify", &headers, VALID).await;
        assert_eq!(answer.status, 415, "{bad}");
        answer.problem(415, "unsupported_media_type");
        assert_eq!(answer.header("accept-post"), "application/json");
    }
    bench.assert_untouched();
}

#[rstest]
#[case::no_type(&[])]
#[case::twice(&[("content-type", "application/json"), ("content-type", "application/json")])]
#[case::two_types(&[("content-type", "application/json"), ("content-type", "text/plain")])]
#[case::gzip(&[("content-type", "application/json"), ("content-encoding", "gzip")])]
#[case::brotli(&[("content-type", "application/json"), ("content-encoding", "br")])]
#[tokio::test]
async fn a_body_is_neither_untyped_nor_twice_typed_nor_compressed(
    #[case] headers: &[(&str, &str)],
) {
    let bench = Bench::refusing();
    let answer = bench.send("POST", "/otp/verify", headers, VALID).await;
    answer.problem(415, "unsupported_media_type");
    bench.assert_untouched();
}

#[tokio::test]
async fn more_than_8_kib_is_too_large() {
    let bench = Bench::refusing();
    let long = format!("{VALID}{}", " ".repeat(8 * 1024 - VALID.len() + 1));
    let answer = bench.post("/otp/verify", long.clone()).await;
    answer.problem(413, "body_too_large");
    bench.assert_untouched();
}

#[tokio::test]
async fn an_endless_body_of_unknown_length_is_cut() {
    let bench = Bench::refusing();
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from("    "))));
    let answer = bench
        .post("/otp/verify", Body::new(StreamBody::new(endless)))
        .await;
    answer.problem(413, "body_too_large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let bench = Bench::refusing();
    let broken = stream::iter([
        Ok(Frame::data(Bytes::from(VALID))),
        Err(std::io::Error::other("reset")),
    ]);
    let answer = bench
        .post("/otp/verify", Body::new(StreamBody::new(broken)))
        .await;
    answer.problem(400, "incomplete_body");
    bench.assert_untouched();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up_after_5_s() {
    let bench = Bench::refusing();
    let begin = Instant::now();
    let silent = stream::pending::<Result<Frame<Bytes>, Infallible>>();
    let answer = bench
        .post("/otp/verify", Body::new(StreamBody::new(silent)))
        .await;
    answer.problem(408, "request_timeout");
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(begin.elapsed().as_secs(), 5);
}
