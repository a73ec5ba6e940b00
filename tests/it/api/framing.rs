//! Heads and targets as bytes on a real socket.

use tokio::io::AsyncWriteExt;

use super::Bench;
use super::running::{Running, hello, limits, read_answer};

#[tokio::test]
async fn a_head_has_at_most_16_kib_and_64_fields() {
    let running = Running::start(hello(), limits()).await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(17 * 1024)
    );
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: 1\r\n".repeat(64));
    for head in [long, many] {
        let answer = running.exchange(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let most = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: 1\r\n".repeat(63));
    let mut stream = running.connect().await;
    stream.write_all(most.as_bytes()).await.unwrap();
    read_answer(&mut stream, "hello").await;
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
