//! The client side of `/readyz`, for `otpost healthcheck`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longer than the pings behind `/readyz` may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// A process is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Nobody listens there.
    #[error("nobody answers at {0}")]
    Unreachable(SocketAddr, #[source] io::Error),
    /// It did not answer in HTTP.
    #[error("no HTTP answer from {0}")]
    NoAnswer(SocketAddr, #[source] hyper::Error),
    /// It did not answer in time.
    #[error("no answer from {0} within 3 s")]
    TooLate(SocketAddr),
    /// It says that it is not ready.
    #[error("{0} answers {1}")]
    Status(SocketAddr, StatusCode),
}

/// Succeeds when the process whose operations listener is at `listen` is ready.
pub async fn ask_ready(listen: SocketAddr) -> Result<(), NotReady> {
    let address = reachable(listen);
    let answer = tokio::time::timeout(DEADLINE, ask(address)).await;
    match answer.map_err(|_elapsed| NotReady::TooLate(address))?? {
        StatusCode::OK => Ok(()),
        other => Err(NotReady::Status(address, other)),
    }
}

async fn ask(address: SocketAddr) -> Result<StatusCode, NotReady> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| NotReady::Unreachable(address, error))?;
    let no_answer = |error| NotReady::NoAnswer(address, error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(no_answer)?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = hyper::Uri::from_static("/readyz");
    let host = address
        .to_string()
        .parse()
        .expect("an address is a header value");
    request.headers_mut().insert(HOST, host);
    // The connection is driven beside the request and dropped with it.
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer.map_err(no_answer)?.status()),
        ended = connection => match ended {
            Ok(()) => Err(NotReady::Unreachable(address, io::ErrorKind::ConnectionReset.into())),
            Err(error) => Err(no_answer(error)),
        },
    }
}

/// Who listens everywhere is asked on the loopback address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::routing::get;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::api::server::{Limits, serve};

    /// Asks a process that listens everywhere and answers with this status.
    async fn ask_one_that_answers(status: StatusCode) -> Result<(), NotReady> {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/readyz", get(move || async move { status }));
        let (limits, stop) = (Limits::default(), CancellationToken::new());
        let served = serve(listener, router, limits, Vec::new(), Arc::default(), stop);
        tokio::select! {
            () = served => panic!("the server ended"),
            answer = ask_ready(address) => answer,
        }
    }

    #[tokio::test]
    async fn only_200_means_ready() {
        assert!(ask_one_that_answers(StatusCode::OK).await.is_ok());
        let answer = ask_one_that_answers(StatusCode::SERVICE_UNAVAILABLE).await;
        assert!(matches!(
            answer,
            Err(NotReady::Status(_, StatusCode::SERVICE_UNAVAILABLE))
        ));
    }

    #[tokio::test]
    async fn a_free_port_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(
            ask_ready(address).await,
            Err(NotReady::Unreachable(..))
        ));
    }
}
