//! Strict JSON: what is an object of texts, and what is refused, told by its place alone.

use serde_json::Value;

use super::Bench;

const VALID: &str = r#"{"email":"ada@example.org","otp":"012345"}"#;

const MALFORMED: &[&[u8]] = &[
    b"",
    b" ",
    b"{",
    b"}",
    b"{\"email\"",
    b"{\"email\":}",
    b"{\"email\":\"ada@example.org\"",
    b"{\"email\":\"ada@example.org\",}",
    b"{,\"email\":\"ada@example.org\"}",
    b"{'email':'ada@example.org'}",
    b"{email:\"ada@example.org\"}",
    b"{\"email\":\"ada@example.org\"}}",
    b"{\"email\":\"ada@example.org\"} x",
    b"{\"email\":\"ada@example.org\"}{\"email\":\"ada@example.org\"}",
    b"{\"email\":\"ada@example.org\"}\0",
    b"{\"email\":\"ada@example.org\"} // comment",
    b"/* comment */{\"email\":\"ada@example.org\"}",
    b"\xef\xbb\xbf{\"email\":\"ada@example.org\"}",
    b"\xff\xfe{\0}\0",
    b"{\"email\":\"ada\xff@example.org\"}",
    b"{\"email\":\"\xc0\xaf\"}",
    b"{\"email\":\"\\ud800\"}",
    b"{\"email\":\"\\x61\"}",
    b"{\"email\":\"a\nb\"}",
    b"{\"email\":\"a\0b\"}",
    b"{\"email\":NaN}",
    b"{\"email\":+1}",
    b"{\"email\":01}",
    b"{\"email\":1.}",
    b"{\"email\":True}",
    b"{\"email\":1e999}",
    b"email=ada@example.org",
    b"<email>ada@example.org</email>",
    b"undefined",
];

#[tokio::test]
async fn whatever_is_not_one_json_text_is_malformed() {
    let bench = Bench::refusing();
    for case in MALFORMED {
        let shown = String::from_utf8_lossy(case).into_owned();
        for path in ["/otp/generate", "/otp/verify"] {
            let answer = bench.post(path, case.to_vec()).await;
            assert_eq!(answer.status, 400, "{shown}");
            answer.problem(400, "malformed_json");
        }
    }
    bench.assert_untouched();
}

#[tokio::test]
async fn a_json_text_that_is_no_object_is_refused() {
    let bench = Bench::refusing();
    for body in [
        r#"["ada@example.org","012345"]"#,
        r#"["ada@example.org","012345",null]"#,
        r#"["ada@example.org"]"#,
        r#"[{"email":"ada@example.org","otp":"012345"}]"#,
        "[]",
        r#""ada@example.org""#,
        "012345.0e0",
        "123456",
        "null",
        "true",
    ] {
        let answer = bench.post("/otp/verify", body).await;
        assert_eq!(answer.status, 400, "{body}");
    }
    let answer = bench
        .post("/otp/verify", r#"["ada@example.org","012345"]"#)
        .await;
    let document = answer.problem(400, "invalid_request");
    assert_eq!(document["errors"][0]["pointer"], "#");
    assert_eq!(document["errors"][0]["code"], "not_an_object");
    bench.assert_untouched();
}

type Mistakes<'a> = &'a [(&'a str, &'a str)];

/// Bodies and where they are wrong.
const MISTAKES: &[(&str, Mistakes)] = &[
    ("{}", &[("#/email", "required"), ("#/otp", "required")]),
    (r#"{"email":"ada@example.org"}"#, &[("#/otp", "required")]),
    (r#"{"otp":"012345"}"#, &[("#/email", "required")]),
    (
        r#"{"email":null,"otp":null,"context":null}"#,
        &[
            ("#/email", "not_a_text"),
            ("#/otp", "not_a_text"),
            ("#/context", "not_a_text"),
        ],
    ),
    (
        r#"{"email":"ada@example.org","otp":123456}"#,
        &[("#/otp", "not_a_text")],
    ),
    (
        r#"{"email":"ada@example.org","otp":-1.5}"#,
        &[("#/otp", "not_a_text")],
    ),
    (
        r#"{"email":"ada@example.org","otp":true}"#,
        &[("#/otp", "not_a_text")],
    ),
    (
        r#"{"email":"ada@example.org","otp":["012345"]}"#,
        &[("#/otp", "not_a_text")],
    ),
    (
        r#"{"email":"ada@example.org","otp":{"$ne":""}}"#,
        &[("#/otp", "not_a_text")],
    ),
    (
        r#"{"email":["ada@example.org"],"otp":"012345"}"#,
        &[("#/email", "not_a_text")],
    ),
    (
        r#"{"email":"ada@example.org","email":"ada@example.org","otp":"012345"}"#,
        &[("#/email", "duplicate")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","otp":"012345"}"#,
        &[("#/otp", "duplicate")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","\u006ftp":"012345"}"#,
        &[("#/otp", "duplicate")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","context":"a","context":1}"#,
        &[("#/context", "duplicate")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","x":1}"#,
        &[("#", "unknown_member")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","":1}"#,
        &[("#", "unknown_member")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","OTP":"1"}"#,
        &[("#", "unknown_member")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","locale":"de"}"#,
        &[("#", "unknown_member")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","__proto__":{}}"#,
        &[("#", "unknown_member")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","a":[[[[[1]]]]],"a":{"b":{"b":1}}}"#,
        &[("#", "unknown_member")],
    ),
    (
        r#"{"data":{"email":"ada@example.org","otp":"012345"}}"#,
        &[
            ("#/email", "required"),
            ("#/otp", "required"),
            ("#", "unknown_member"),
        ],
    ),
    (
        r#"{"email":"ada","otp":"012345"}"#,
        &[("#/email", "invalid")],
    ),
    (r#"{"email":"","otp":"012345"}"#, &[("#/email", "invalid")]),
    (
        r#"{"email":"ada@example.org\u0000","otp":"012345"}"#,
        &[("#/email", "invalid")],
    ),
    (
        r#"{"email":"\u0000ada@example.org","otp":"012345"}"#,
        &[("#/email", "invalid")],
    ),
    (
        r#"{"email":"ada@example.org\r\nBcc:x","otp":"012345"}"#,
        &[("#/email", "invalid")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345\u0000"}"#,
        &[("#/otp", "invalid")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345\n"}"#,
        &[("#/otp", "invalid")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"+12345"}"#,
        &[("#/otp", "invalid")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"1e5000"}"#,
        &[("#/otp", "invalid")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"0x1234"}"#,
        &[("#/otp", "invalid")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","context":""}"#,
        &[("#/context", "invalid")],
    ),
    (
        r#"{"email":"ada@example.org","otp":"012345","context":"a\u0000"}"#,
        &[("#/context", "invalid")],
    ),
    (
        r#"{"email":"x","otp":"y","context":"","z":1}"#,
        &[
            ("#/email", "invalid"),
            ("#/otp", "invalid"),
            ("#/context", "invalid"),
            ("#", "unknown_member"),
        ],
    ),
];

/// The pointers and codes of an answer, in their order.
fn findings(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = document["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|error| {
            assert!(!text(&error["message"]).is_empty());
            (text(&error["pointer"]), text(&error["code"]))
        })
        .collect()
}

#[tokio::test]
async fn every_mistake_in_an_object_is_told_at_once_by_its_place() {
    let bench = Bench::refusing();
    for (body, expected) in MISTAKES {
        let answer = bench.post("/otp/verify", *body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let found = findings(&answer.problem(400, "invalid_request"));
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(pointer, code)| (pointer.as_str(), code.as_str()))
            .collect();
        assert_eq!(found, *expected, "{body}");
    }
    bench.assert_untouched();
}

#[tokio::test]
async fn nesting_costs_nothing_but_a_refusal() {
    let bench = Bench::refusing();
    let half = (8 * 1024 - 16) / 2;
    for (open, close) in [("[", "]"), ("{\"\":", "}")] {
        let depth = half / open.len();
        let body = format!(
            r#"{{"email":{}1{}}}"#,
            open.repeat(depth),
            close.repeat(depth)
        );
        let answer = bench.post("/otp/generate", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    bench.assert_untouched();
}

#[tokio::test]
async fn generate_takes_no_code_and_no_bad_locale() {
    let bench = Bench::refusing();
    for (body, pointer) in [
        (r#"{"email":"ada@example.org","otp":"012345"}"#, "#"),
        (
            r#"{"email":"ada@example.org","locale":"de_DE"}"#,
            "#/locale",
        ),
        (r#"{"email":"ada@example.org","locale":""}"#, "#/locale"),
        (r#"{"email":"ada@example.org","locale":null}"#, "#/locale"),
        (
            r#"{"email":"ada@example.org","context":"\u001b"}"#,
            "#/context",
        ),
    ] {
        let answer = bench.post("/otp/generate", body).await;
        let document = answer.problem(400, "invalid_request");
        assert_eq!(findings(&document)[0].0, pointer, "{body}");
    }
    bench.assert_untouched();
}

#[tokio::test]
async fn ways_of_writing_the_same_json_are_alike() {
    let bench = Bench::refusing();
    for body in [
        VALID.to_owned(),
        format!(" \t\r\n{VALID} \t\r\n"),
        r#"{"otp":"012345","email":"ada@example.org"}"#.to_owned(),
        r#"{"\u0065mail":"ada\u0040example.org","otp":"\u0030\u0031\u0032345"}"#.to_owned(),
        format!("{VALID}{}", " ".repeat(8 * 1024 - VALID.len())),
    ] {
        let answer = bench.post("/otp/verify", body.clone()).await;
        assert_eq!(answer.status, 422, "{body}");
    }
}
