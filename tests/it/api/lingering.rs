//! The end of a connection whose client still sends: it gets its answer, and does not hold the server.

use otpost::api::server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Bench;
use super::running::{PATIENCE, Running, SHORT, hello, limits, read_to_close};

/// A head that is refused, behind which nothing is read as a request.
const REFUSED: &[u8] = b"GET / HTTP/1.0\n\n";
const MIB: usize = 1024 * 1024;

/// Sends all of a request before it reads, like many clients do, and fails if the connection breaks.
/// The system takes little of it in advance, so that most is sent when the answer is there already.
async fn send_all_then_read(running: &Running, head: &str, body: &[u8]) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(running.address).await.unwrap();
    let mut answer = String::new();
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        stream.read_to_string(&mut answer).await
    };
    let read = timeout(PATIENCE, exchange).await.unwrap();
    read.unwrap_or_else(|error| panic!("{head}: {error}"));
    answer
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_gets_the_whole_refusal() {
    let running = Running::start(Bench::new().router, limits()).await;
    let post = "POST /otp/verify HTTP/1.1\r\nHost: x\r\n";
    let json = "Content-Type: application/json\r\n";
    let length = format!("Content-Length: {MIB}\r\n");
    let chunks = [format!("{MIB:x}\r\n").into(), vec![b' '; MIB]].concat();
    let plain = vec![b' '; MIB];
    for (head, body, status) in [
        (format!("{post}{json}{length}\r\n"), &plain, "413"),
        (format!("{post}{length}\r\n"), &plain, "415"),
        (format!("{post}{length}{length}\r\n"), &plain, "400"),
        (format!("{post}X: {}", "a".repeat(MIB)), &plain, "431"),
        (
            format!("{post}{json}Transfer-Encoding: chunked\r\n\r\n"),
            &chunks,
            "413",
        ),
    ] {
        let answer = send_all_then_read(&running, &head, body).await;
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&begin), "{status}: {answer}");
        assert!(answer.ends_with('}'), "{status}: {answer}");
    }
    running.end().await;
}

/// A client that was refused, has read all of the answer and keeps its side open.
async fn refused(running: &Running) -> TcpStream {
    let mut stream = running.connect().await;
    stream.write_all(REFUSED).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    stream
}

fn room_for_one() -> Limits {
    Limits {
        connections: 1,
        ..limits()
    }
}

#[tokio::test]
async fn a_connection_that_lingers_keeps_its_place_until_its_client_closes() {
    let running = Running::start(hello(), room_for_one()).await;
    let lingering = refused(&running).await;
    assert_eq!(read_to_close(&mut running.connect().await).await, "");
    drop(lingering);
    running.wait_for_room().await;
    running.end().await;
}

#[tokio::test]
async fn a_connection_lingers_no_longer_than_it_may() {
    for bounds in [
        Limits {
            linger: SHORT,
            ..room_for_one()
        },
        Limits {
            idle: SHORT,
            ..room_for_one()
        },
    ] {
        let running = Running::start(hello(), bounds).await;
        let _lingering = refused(&running).await;
        running.wait_for_room().await;
        running.end().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_on_sending_is_cut_off() {
    let running = Running::start(hello(), limits()).await;
    let mut stream = refused(&running).await;
    let endless = vec![b' '; MIB];
    let writing = async {
        let mut sent = 0;
        while stream.write_all(&endless).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let sent = timeout(PATIENCE, writing)
        .await
        .expect("the server hangs up");
    // What the system holds on both sides comes on top of what is read.
    assert!(sent < 100, "{sent} MiB");
    running.end().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_connection_that_lingers() {
    let bounds = Limits {
        drain: PATIENCE * 2,
        ..limits()
    };
    let running = Running::start(hello(), bounds).await;
    let _lingering = refused(&running).await;
    running.end().await;
}
