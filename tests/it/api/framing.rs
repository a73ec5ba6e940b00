//! Heads, bodies and targets as bytes on a real socket: what has more than one reading is refused, and
//! the connection ends.

use otpost::api::framing::{Framing, Last};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Bench;
use super::malformed::MALFORMED;
use super::running::{Running, limits, read_to_close};

#[tokio::test]
async fn a_head_has_at_most_16_kib_and_64_fields() {
    let running = Running::start(Bench::new().router, limits()).await;
    let long = format!(
        "GET /- HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(17 * 1024)
    );
    let many = format!(
        "GET /- HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "X: 1\r\n".repeat(64)
    );
    for head in [long, many] {
        let answer = running.exchange(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        assert!(answer.contains("\"code\":\"head_too_large\""), "{answer}");
    }
    let most = format!(
        "GET /- HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n",
        "X: 1\r\n".repeat(62)
    );
    let answer = running.exchange(most.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    running.end().await;
}

#[tokio::test]
async fn a_large_body_is_refused_without_being_read() {
    let running = Running::start(Bench::new().router, limits()).await;
    // Only the head is sent; an answer shows that nobody waits for the rest.
    let head = b"POST /otp/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: 1000000000\r\nConnection: close\r\n\r\n";
    let answer = running.exchange(head).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert!(
        !answer.to_ascii_lowercase().contains("\r\nserver:"),
        "{answer}"
    );
    running.end().await;
}

/// The client writes for as long as it is let: a gigabyte, if nobody cut it off.
#[tokio::test]
async fn a_stream_of_chunks_is_cut_at_the_limit() {
    let running = Running::start(Bench::new().router, limits()).await;
    let mut stream = running.connect().await;
    let head = b"POST /otp/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let write = async {
        let mut sent = 0_u64;
        while sent < 1_000_000_000 && writer.write_all(chunk.as_bytes()).await.is_ok() {
            sent += 0x10000;
        }
        sent
    };
    let mut answer = vec![0; 12];
    let read = async {
        let status = reader.read_exact(&mut answer).await;
        // Until the server hangs up, so that the writer sees it, too.
        let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
        status
    };
    let (sent, status) = tokio::join!(write, read);
    status.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    assert!(sent < 100_000_000, "{sent}");
    running.end().await;
}

#[tokio::test]
async fn what_never_becomes_a_request_is_not_stored_by_caches_either() {
    let running = Running::start(Bench::new().router, limits()).await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(17 * 1024)
    );
    for head in ["GET / HTTP/1.1\r\n\r\n", &long] {
        let answer = running.exchange(head.as_bytes()).await;
        let answer = answer.to_ascii_lowercase();
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        ] {
            assert!(
                answer.contains(&format!("\r\n{header}\r\n")),
                "{header}: {answer}"
            );
        }
    }
    running.end().await;
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_before_it_sends_too_much() {
    let running = Running::start(Bench::new().router, limits()).await;
    let head = b"POST /otp/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: 100000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let answer = running.exchange(head).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    running.end().await;
}

#[tokio::test]
async fn odd_targets_are_answered_like_any_other() {
    let running = Running::start(Bench::new().router, limits()).await;
    for (line, status) in [
        ("OPTIONS * HTTP/1.1", "404"),
        ("CONNECT example.org:443 HTTP/1.1", "404"),
        ("GET http://example.org/otp/verify HTTP/1.1", "405"),
        ("TRACE / HTTP/1.1", "405"),
        ("GET //otp/verify HTTP/1.1", "404"),
        ("GET /otp/%76erify HTTP/1.1", "404"),
        ("GET /otp/../otp/verify HTTP/1.1", "404"),
    ] {
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = running.exchange(request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{line}: {answer}"
        );
        assert!(
            answer.contains("application/problem+json"),
            "{line}: {answer}"
        );
    }
    running.end().await;
}

/// The rest of a request that verify answers with 400 for its body, which shows that it was read.
const EMPTY_OBJECT: &str = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
/// A request that is answered in full, to follow one that is not.
const SMUGGLED: &str = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_head_with_more_than_one_reading_is_refused_and_ends_the_connection() {
    let running = Running::start(Bench::new().router, limits()).await;
    for (case, request) in MALFORMED {
        // Whatever stands behind it is not taken for a request.
        let answer = running
            .exchange(format!("{request}{SMUGGLED}").as_bytes())
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{case}: {answer}");
        assert!(
            answer.contains("\"code\":\"malformed_request\""),
            "{case}: {answer}"
        );
        assert!(
            answer
                .to_ascii_lowercase()
                .contains("\r\nconnection: close\r\n"),
            "{case}: {answer}"
        );
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{case}: {answer}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_good_request_before_a_malformed_one_has_its_own_answer() {
    let running = Running::start(Bench::new().router, limits()).await;
    for (case, request) in MALFORMED {
        let good = format!("POST /otp/verify HTTP/1.1\r\nHost: x\r\n{EMPTY_OBJECT}");
        let answer = running
            .exchange(format!("{good}{request}{SMUGGLED}").as_bytes())
            .await;
        let (first, second) = (
            answer.find("invalid_request"),
            answer.find("malformed_request"),
        );
        assert!(first.is_some() && first < second, "{case}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 400 ").count(),
            2,
            "{case}: {answer}"
        );
        assert!(!answer.contains("HTTP/1.1 200 "), "{case}: {answer}");
    }
    running.end().await;
}

#[tokio::test]
async fn heads_with_one_reading_are_answered() {
    let running = Running::start(Bench::new().router, limits()).await;
    let cases = [
        (
            "empty lines first",
            format!("\r\n\r\nPOST /otp/verify HTTP/1.1\r\nHost: x\r\n{EMPTY_OBJECT}"),
        ),
        (
            "HTTP/1.0 without Host",
            format!("POST /otp/verify HTTP/1.0\r\n{EMPTY_OBJECT}"),
        ),
        (
            "an absolute target",
            format!("POST http://x/otp/verify HTTP/1.1\r\nHost: x\r\n{EMPTY_OBJECT}"),
        ),
        (
            "IPv6 with a port",
            format!("POST /otp/verify HTTP/1.1\r\nHost: [::1]:80\r\n{EMPTY_OBJECT}"),
        ),
        (
            "no space after the colon",
            format!("POST /otp/verify HTTP/1.1\r\nHost:x\r\n{EMPTY_OBJECT}"),
        ),
        (
            "tabs around a value",
            format!("POST /otp/verify HTTP/1.1\r\nHost:\t x \t\r\n{EMPTY_OBJECT}"),
        ),
        (
            "a value beyond ASCII",
            format!("POST /otp/verify HTTP/1.1\r\nHost: x\r\nX: \u{e9}\r\n{EMPTY_OBJECT}"),
        ),
        (
            "an empty value",
            format!("POST /otp/verify HTTP/1.1\r\nHost: x\r\nX:\r\n{EMPTY_OBJECT}"),
        ),
    ];
    for (case, request) in cases {
        let answer = running
            .exchange(format!("{request}GET /- HTTP/1.1\r\n\r\n").as_bytes())
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
            "{case}: {answer}"
        );
        assert!(answer.contains("invalid_request"), "{case}: {answer}");
    }
    running.end().await;
}

/// Chunked bodies, and how they are answered.
const CHUNKED: &[(&str, &str, &str)] = &[
    ("one chunk", "2\r\n{}\r\n0\r\n\r\n", "invalid_request"),
    (
        "two chunks",
        "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        "invalid_request",
    ),
    (
        "an extension",
        "2;a=b\r\n{}\r\n0\r\n\r\n",
        "invalid_request",
    ),
    (
        "a trailer",
        "2\r\n{}\r\n0\r\nX: a\r\n\r\n",
        "invalid_request",
    ),
    ("leading zeros", "002\r\n{}\r\n0\r\n\r\n", "invalid_request"),
    (
        "a size that is no number",
        "z\r\n{}\r\n0\r\n\r\n",
        "incomplete_body",
    ),
    (
        "a size with a sign",
        "+2\r\n{}\r\n0\r\n\r\n",
        "incomplete_body",
    ),
    (
        "a size in C's manner",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "incomplete_body",
    ),
    (
        "a size beyond 64 bits",
        "10000000000000002\r\n{}\r\n0\r\n\r\n",
        "incomplete_body",
    ),
    (
        "a chunk longer than its size",
        "1\r\n{}\r\n0\r\n\r\n",
        "incomplete_body",
    ),
    (
        "a size line without CR",
        "2\n{}\r\n0\r\n\r\n",
        "incomplete_body",
    ),
    (
        "an extension that ends without CR",
        "2;a\n{}\r\n0\r\n\r\n",
        "incomplete_body",
    ),
];

#[tokio::test]
async fn chunks_are_read_and_nothing_may_follow_them() {
    let running = Running::start(Bench::new().router, limits()).await;
    for (case, body, code) in CHUNKED {
        let request = format!(
            "POST /otp/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: Chunked\r\n\r\n{body}{SMUGGLED}"
        );
        let answer = running.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{case}: {answer}");
        assert!(
            answer.contains(&format!("\"code\":\"{code}\"")),
            "{case}: {answer}"
        );
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{case}: {answer}");
    }
    running.end().await;
}

proptest! {
    /// Where the network cuts the bytes decides nothing.
    #[test]
    fn framing_reads_alike_however_the_bytes_arrive(
        first in 0..MALFORMED.len(),
        cuts in proptest::collection::vec(1..40_usize, 1..20),
    ) {
        let good = format!("\r\nPOST / HTTP/1.1\r\nHost: x\r\n{EMPTY_OBJECT}");
        let bytes = format!("{good}{}{SMUGGLED}", MALFORMED[first].1).into_bytes();
        let (mut rest, mut passed, mut framing) = (&bytes[..], Vec::new(), Framing::default());
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            framing.receive(piece);
            passed.extend_from_slice(framing.pass(*cut));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        passed.extend_from_slice(framing.pass(usize::MAX));
        let mut whole = Framing::default();
        whole.receive(&bytes);
        prop_assert_eq!(passed, whole.pass(usize::MAX));
        prop_assert_eq!(framing.last(), whole.last());
        let is_refused = matches!(whole.last(), Some(Last { after: 1, flaw: Some(_) }));
        prop_assert!(is_refused);
    }
}

#[tokio::test]
async fn no_byte_in_a_head_is_refused_without_words() {
    let running = Running::start(Bench::new().router, limits()).await;
    let places = [
        ("a method", "G", "T /- HTTP/1.1\r\nHost: x\r\n"),
        ("a target", "GET /a", "b HTTP/1.1\r\nHost: x\r\n"),
        ("a bare target", "GET ", " HTTP/1.1\r\nHost: x\r\n"),
        ("a name", "GET /- HTTP/1.1\r\nHost: x\r\nX", "Y: a\r\n"),
        ("a value", "GET /- HTTP/1.1\r\nHost: x\r\nX: ", "\r\n"),
        ("a host", "GET /- HTTP/1.1\r\nHost: x", "y\r\n"),
    ];
    for (place, before, after) in places {
        for byte in 0..=u8::MAX {
            let after = format!("{after}Connection: close\r\n\r\n");
            let head = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            let mut stream = running.connect().await;
            stream.write_all(&head).await.unwrap();
            let answer = read_to_close(&mut stream).await;
            // The landing page is at a bare slash.
            let is_right = answer.contains("application/problem+json")
                || (byte == b'/' && answer.starts_with("HTTP/1.1 200 "));
            assert!(is_right, "{byte:#04x} in {place}: {answer}");
        }
    }
    running.end().await;
}
