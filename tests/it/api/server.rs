//! The server on real sockets: deadlines, bounds and the stop.

use std::sync::Arc;

use axum::Router;
use axum::extract::Extension;
use axum::routing::{get, post};
use otpost::api::server::{Limits, Peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::running::{
    HELLO, PATIENCE, Running, SHORT, greet, hello, limits, read_answer, read_to_close, short_head,
    short_idle,
};

#[tokio::test]
async fn a_silent_connection_is_closed_by_the_deadline_of_the_head() {
    let running = Running::start(hello(), short_head()).await;
    let begin = Instant::now();
    let answer = running.exchange(b"").await;
    assert_eq!(answer, "");
    assert!(begin.elapsed() >= SHORT);
    running.end().await;
}

#[tokio::test]
async fn a_head_that_drips_gains_no_time() {
    let running = Running::start(hello(), short_head()).await;
    let mut stream = running.connect().await;
    let begin = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut tick = tokio::time::interval(SHORT / 10);
    let drip = async {
        // Ends when the server has closed the connection.
        loop {
            tick.tick().await;
            if writer.write_all(b"X-Drip: 1\r\n").await.is_err() {
                break;
            }
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        read = timeout(PATIENCE, reader.read_to_end(&mut answer)) => { let _ = read.unwrap(); }
        () = drip => {}
    }
    assert!(answer.is_empty());
    assert!(begin.elapsed() >= SHORT);
    running.end().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_by_its_own_deadline() {
    let running = Running::start(hello(), short_idle()).await;
    let mut stream = running.greeted().await;
    assert_eq!(read_to_close(&mut stream).await, "");
    running.end().await;
}

#[tokio::test]
async fn a_second_head_has_the_deadline_of_a_head_and_not_that_of_idleness() {
    let running = Running::start(hello(), short_head()).await;
    let mut stream = running.greeted().await;
    stream.write_all(b"GET / HTT").await.unwrap();
    assert_eq!(read_to_close(&mut stream).await, "");
    running.end().await;
}

#[tokio::test]
async fn a_head_that_begins_along_with_a_request_has_no_time_of_idleness() {
    let running = Running::start(hello(), short_head()).await;
    let mut stream = running.connect().await;
    stream
        .write_all(&[HELLO, b"\r\nGET / HTT"].concat())
        .await
        .unwrap();
    read_answer(&mut stream, "hello").await;
    assert_eq!(read_to_close(&mut stream).await, "");
    running.end().await;
}

#[tokio::test]
async fn line_ends_after_a_request_begin_no_head() {
    let running = Running::start(hello(), short_idle()).await;
    let mut stream = running.connect().await;
    stream.write_all(&[HELLO, b"\r\n"].concat()).await.unwrap();
    read_answer(&mut stream, "hello").await;
    assert_eq!(read_to_close(&mut stream).await, "", "it was idle");
    running.end().await;
}

#[tokio::test]
async fn a_request_that_takes_for_ever_is_cut_off() {
    let router = Router::new().route("/", get(std::future::pending::<()>));
    let running = Running::start(
        router,
        Limits {
            request: SHORT,
            ..limits()
        },
    )
    .await;
    assert_eq!(running.exchange(HELLO).await, "");
    running.end().await;
}

#[tokio::test]
async fn a_kept_connection_serves_one_request_after_the_other() {
    let running = Running::start(hello(), limits()).await;
    let mut stream = running.connect().await;
    for _ in 0..3 {
        greet(&mut stream).await;
    }
    stream.write_all(&HELLO.repeat(2)).await.unwrap();
    let answer = read_answer(&mut stream, "hello").await;
    let answer = match answer.matches("hello").count() {
        1 => answer + &read_answer(&mut stream, "hello").await,
        _ => answer,
    };
    assert_eq!(answer.matches("hello").count(), 2, "pipelined: {answer}");
    running.end().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_at_once_and_room_is_reused() {
    let running = Running::start(
        hello(),
        Limits {
            connections: 2,
            ..limits()
        },
    )
    .await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(running.greeted().await);
    }
    assert_eq!(read_to_close(&mut running.connect().await).await, "");
    drop(kept);
    // The server learns of the free room when it has read the end of a connection.
    running.wait_for_room().await;
    running.end().await;
}

const LOCAL: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

/// Whether a new connection from there is served; it is kept among those that are held.
async fn is_served(running: &Running, from: [u8; 4], held: &mut Vec<TcpStream>) -> bool {
    let mut stream = running.connect_from(from).await;
    let _ = stream.write_all(HELLO).await;
    let mut byte = [0];
    let is_served = timeout(PATIENCE, stream.read(&mut byte)).await.unwrap();
    held.push(stream);
    is_served.is_ok_and(|read| read == 1)
}

#[tokio::test]
async fn one_peer_has_its_share_of_the_connections_and_leaves_the_others_theirs() {
    let bounds = Limits {
        connections: 5,
        of_one_peer: 2,
        ..limits()
    };
    let running = Running::start(hello(), bounds).await;
    let mut held = Vec::new();
    let mut served = Vec::new();
    for from in [LOCAL, LOCAL, LOCAL, OTHER, OTHER, OTHER, [127, 0, 0, 3]] {
        served.push(is_served(&running, from, &mut held).await);
    }
    assert_eq!(served, [true, true, false, true, true, false, true]);
    assert!(!is_served(&running, [127, 0, 0, 4], &mut held).await);
    let metrics = running.telemetry.encode();
    for line in [
        "otpost_http_connections_refused_total{reason=\"one_peer\"} 2",
        "otpost_http_connections_refused_total{reason=\"all\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_trusted_proxy_may_have_all_connections() {
    let bounds = Limits {
        connections: 4,
        of_one_peer: 1,
        ..limits()
    };
    let running = Running::behind(hello(), bounds, &["127.0.0.1"]).await;
    let mut held = Vec::new();
    for from in [OTHER, LOCAL, LOCAL, LOCAL] {
        assert!(is_served(&running, from, &mut held).await, "{from:?}");
    }
    assert!(!is_served(&running, LOCAL, &mut held).await);
    running.end().await;
}

/// A router whose requests wait; the first notice tells that one has come in, the second lets it go on.
fn holding() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (entered, proceed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, go) = (entered.clone(), proceed.clone());
    let hold = move || async move {
        enter.notify_one();
        go.notified().await;
        "hello"
    };
    (Router::new().route("/", get(hold)), entered, proceed)
}

#[tokio::test]
async fn a_stop_finishes_the_request_in_flight_and_takes_no_other() {
    let (router, entered, proceed) = holding();
    let running = Running::start(router, limits()).await;
    let mut busy = running.connect().await;
    let mut silent = running.connect().await;
    busy.write_all(HELLO).await.unwrap();
    timeout(PATIENCE, entered.notified()).await.unwrap();
    running.stop.cancel();
    assert_eq!(
        read_to_close(&mut silent).await,
        "",
        "an idle connection is closed"
    );
    assert!(!running.server.is_finished());
    assert!(
        TcpStream::connect(running.address).await.is_err(),
        "nobody listens"
    );
    proceed.notify_one();
    let answer = read_to_close(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.to_ascii_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert!(answer.ends_with("hello"), "{answer}");
    running.end().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let (router, entered, _proceed) = holding();
    let running = Running::start(
        router,
        Limits {
            drain: SHORT,
            ..limits()
        },
    )
    .await;
    let mut busy = running.connect().await;
    busy.write_all(HELLO).await.unwrap();
    timeout(PATIENCE, entered.notified()).await.unwrap();
    running.stop.cancel();
    timeout(PATIENCE, running.server).await.unwrap().unwrap();
    assert_eq!(read_to_close(&mut busy).await, "");
}

#[tokio::test]
async fn handlers_know_their_peer() {
    let router = Router::new().route(
        "/",
        get(|Extension(Peer(peer)): Extension<Peer>| async move { peer.to_string() }),
    );
    let running = Running::start(router, limits()).await;
    let mut stream = running.connect().await;
    stream.write_all(HELLO).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    read_answer(&mut stream, &own).await;
    running.end().await;
}

/// Tells when it is dropped.
struct Tell(Arc<Notify>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request_and_nothing_else() {
    let (entered, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let router = {
        let (entered, dropped) = (entered.clone(), dropped.clone());
        Router::new()
            .route(
                "/hang",
                post(move || async move {
                    let _tell = Tell(dropped);
                    entered.notify_one();
                    std::future::pending::<()>().await;
                }),
            )
            .merge(hello())
    };
    let running = Running::start(router, limits()).await;
    let mut stream = running.connect().await;
    let request = b"POST /hang HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    timeout(PATIENCE, entered.notified()).await.unwrap();
    drop(stream);
    timeout(PATIENCE, dropped.notified()).await.unwrap();
    running.greeted().await;
    running.end().await;
}
