//! The server on a port of its own, and the client's side of a connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use otpost::api::server::{Limits, serve};
use otpost::otp::network::Network;
use otpost::telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes; a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const SHORT: Duration = Duration::from_millis(300);

pub fn limits() -> Limits {
    Limits {
        head: PATIENCE * 2,
        request: PATIENCE * 2,
        idle: PATIENCE * 2,
        linger: PATIENCE * 2,
        connections: 100,
        of_one_peer: 100,
        drain: PATIENCE,
    }
}

/// The same, but that a head must have arrived soon.
pub fn short_head() -> Limits {
    Limits {
        head: SHORT,
        ..limits()
    }
}

/// The same, but that a connection may not be idle for long.
pub fn short_idle() -> Limits {
    Limits {
        idle: SHORT,
        ..limits()
    }
}

pub struct Running {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub server: JoinHandle<()>,
    pub telemetry: Arc<Telemetry>,
}

impl Running {
    pub async fn start(router: Router, limits: Limits) -> Self {
        Self::behind(router, limits, &[]).await
    }

    /// The same behind proxies in these networks.
    pub async fn behind(router: Router, limits: Limits, proxies: &[&str]) -> Self {
        let networks = proxies.iter().map(|proxy| Network::parse(proxy).unwrap());
        let proxies = networks.collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let telemetry = Arc::new(Telemetry::default());
        #[expect(clippy::disallowed_methods, reason = "the test joins this task itself")]
        let server = tokio::spawn(serve(
            listener,
            router,
            limits,
            proxies,
            telemetry.clone(),
            stop.clone(),
        ));
        Self {
            address,
            stop,
            server,
            telemetry,
        }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection from another address of this machine.
    pub async fn connect_from(&self, address: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// A connection on which one request was answered.
    pub async fn greeted(&self) -> TcpStream {
        let mut stream = self.connect().await;
        greet(&mut stream).await;
        stream
    }

    /// Asks until the server has room for one more connection; fails if it never has.
    pub async fn wait_for_room(&self) {
        let served = timeout(PATIENCE, async {
            let mut byte = [0];
            loop {
                let mut stream = self.connect().await;
                let _ = stream.write_all(HELLO).await;
                if stream.read(&mut byte).await.is_ok_and(|read| read == 1) {
                    break;
                }
            }
        });
        served.await.expect("the server has room");
    }

    /// Sends bytes and reads until the server closes the connection.
    pub async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_close(&mut stream).await
    }

    pub async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.server).await.unwrap().unwrap();
    }
}

/// Everything up to the end of the connection; a reset is an end, too.
pub async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection");
    String::from_utf8(answer).unwrap()
}

/// Reads one answer, whose body is `body`.
pub async fn read_answer(stream: &mut TcpStream, body: &str) -> String {
    let mut answer = Vec::new();
    timeout(PATIENCE, async {
        while !answer.ends_with(format!("\r\n\r\n{body}").as_bytes()) {
            assert!(
                stream.read_buf(&mut answer).await.unwrap() > 0,
                "closed early"
            );
        }
    })
    .await
    .unwrap();
    String::from_utf8(answer).unwrap()
}

/// One request and its answer.
pub async fn greet(stream: &mut TcpStream) {
    stream.write_all(HELLO).await.unwrap();
    let answer = read_answer(stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

pub fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

pub const HELLO: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
