//! The HTTP/1.1 server: connections with deadlines, a bound on their number, and a stop that finishes
//! what runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::room::Room;
use crate::otp::network::Network;
use crate::telemetry::Telemetry;

/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections that the system holds ready until they are accepted: a burst waits and is not refused.
/// The system may allow less.
const BACKLOG: u32 = 4096;

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the head of a request, from its first byte, or from the start of the connection.
    pub head: Duration,
    /// For a request from its head until its answer is on its way; then counts how long the client takes
    /// nothing of it, as idleness.
    pub request: Duration,
    /// Without a byte between two requests.
    pub idle: Duration,
    /// For the client to close its side, too, behind the last answer.
    pub linger: Duration,
    /// Connections at once; further ones are closed at once.
    pub connections: usize,
    /// Those of one peer among them, but for proxies, who come for many.
    pub of_one_peer: usize,
    /// For requests in flight when the listener stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            request: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            connections: 10_000,
            of_one_peer: 2_500,
            drain: Duration::from_secs(20),
        }
    }
}

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Listens on an address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // The next start need not wait for connections of the last one to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop`; then takes no more connections, finishes the requests in flight, closes
/// idle connections and returns. When this future is dropped, all connections are. `proxies` may
/// have as many connections as there are.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    proxies: Vec<Network>,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) {
    let room = Room::new(limits.connections, limits.of_one_peer, proxies);
    let mut connections = JoinSet::new();
    let mut has_failed = false;
    loop {
        // Nothing is lost by losing: a connection that was not accepted waits, as does one that
        // was not joined.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                has_failed = false;
                let place = match room.take(peer.ip()) {
                    Ok(place) => place,
                    Err(full) => {
                        telemetry.connection_refused(full.as_str());
                        continue;
                    }
                };
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    connection::serve(stream, Peer(peer), router, limits, stop).await;
                    drop(place);
                });
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: that lasts, and says it once.
                if !has_failed {
                    telemetry.part_failed("http listener", &error);
                }
                has_failed = true;
                let _ = tokio::time::timeout(ACCEPT_PAUSE, stop.cancelled()).await;
            }
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits.drain, finished).await;
}

/// Whether the next `accept` may well succeed, since only a client went away.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
