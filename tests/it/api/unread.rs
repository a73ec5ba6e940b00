//! What is left unread: a body by the server, which ends the connection and says so, and answers by the
//! client, which gets no more of them then.

use otpost::api::server::Limits;
use rstest::rstest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::Bench;
use super::running::{PATIENCE, Running, SHORT, limits, read_to_close};

/// Answered before its body is read.
const UNREAD: [&str; 4] = [
    "POST /otp/verify HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
    "POST /- HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
    "POST /openapi.json HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
    "HEAD / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
];

#[tokio::test]
async fn an_answer_before_the_body_was_read_says_that_it_is_the_last() {
    let running = Running::start(Bench::new().router, limits()).await;
    for request in UNREAD {
        let answer = running.exchange(request.repeat(2).as_bytes()).await;
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{request}: {answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    running.end().await;
}

#[tokio::test]
async fn an_answer_after_the_body_was_read_is_followed_by_others() {
    let running = Running::start(Bench::new().router, limits()).await;
    let head = "POST /otp/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: 1\r\n\r\nx");
    let last = format!("{head}Connection: close\r\nContent-Length: 1\r\n\r\nx");
    let answer = running
        .exchange((request.repeat(2) + &last).as_bytes())
        .await;
    assert_eq!(answer.matches("HTTP/1.1 400").count(), 3, "{answer}");
    assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
    running.end().await;
}

/// The client asks for as long as it is let, and the deadlines would begin anew with each request that
/// is answered.
#[rstest]
#[case::get("GET / HTTP/1.1\r\nHost: x\r\n\r\n")]
#[case::head("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")]
#[case::post(UNREAD[0])]
#[case::head_that_asks_first(UNREAD[3])]
#[case::get_that_asks_first("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n")]
#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off(#[case] request: &str) {
    let bounds = Limits {
        head: SHORT,
        idle: SHORT,
        linger: SHORT,
        ..limits()
    };
    let running = Running::start(Bench::new().router, bounds).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut stream = socket.connect(running.address).await.unwrap();
    let many = request.repeat(1_000);
    let asking = async { while stream.write_all(many.as_bytes()).await.is_ok() {} };
    timeout(PATIENCE, asking)
        .await
        .expect("the server hangs up");
    drop(read_to_close(&mut stream).await);
    running.end().await;
}
