//! The HTTP/1.1 server: hyper with deadlines of our own on every connection, a bound on their
//! number, and a stop that finishes what runs.
//!
//! A connection is always in one of three states, and each ends: the head of a request arrives, a
//! request is being answered, nothing happens. hyper's own timer knows only the first and begins it
//! with the idle time, so that the states are kept here and hyper's timer is off.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::framing::{Framing, HEAD_BYTES, HEAD_FIELDS, Last};
use crate::telemetry::Telemetry;

/// What hyper reads ahead on one connection.
const BUFFER_BYTES: usize = 32 * 1024;
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
    /// For a request from its head to the end of its answer.
    pub request: Duration,
    /// Without a byte between two requests.
    pub idle: Duration,
    /// Connections at once; further ones are closed at once.
    pub connections: usize,
    /// For requests in flight when the listener stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            request: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            connections: 10_000,
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
/// idle connections and returns. When this future is dropped, all connections are.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) {
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
                while connections.try_join_next().is_some() {}
                if connections.len() < limits.connections {
                    let connection =
                        connection(stream, Peer(peer), router.clone(), limits, stop.clone());
                    connections.spawn(connection);
                }
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

/// Serves one connection until it ends, a deadline passes or the stop lets it end.
async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    // Answers are small and whole; without this the kernel may hold them back for 40 ms.
    let _ = stream.set_nodelay(true);
    let watch = Arc::new(Watch::new(limits));
    let service = {
        let watch = watch.clone();
        service_fn(move |request| answer(request, peer, router.clone(), watch.clone()))
    };
    let stream = Watched {
        stream,
        framing: Framing::default(),
        watch: watch.clone(),
    };
    let mut served = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_header_size(HEAD_BYTES)
            .max_headers(HEAD_FIELDS)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut deadline = pin!(sleep_until(watch.due()));
    let mut stopped = pin!(stop.cancelled());
    let mut is_stopping = false;
    poll_fn(|context| {
        if !is_stopping && stopped.as_mut().poll(context).is_ready() {
            is_stopping = true;
            served.as_mut().graceful_shutdown();
        }
        // An error is the client's: it went away or does not speak HTTP.
        if served.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // hyper may have moved the deadline while it was polled.
        let due = watch.due();
        if deadline.deadline() != due {
            deadline.as_mut().reset(due);
        }
        deadline.as_mut().poll(context)
    })
    .await;
}

/// Hands a request to the router and keeps the connection's state.
async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    router: Router,
    watch: Arc<Watch>,
) -> Result<hyper::Response<Answer>, Infallible> {
    let last = watch.next_request();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    if let Some(flaw) = last.and_then(|last| last.flaw) {
        request.extensions_mut().insert(flaw);
    }
    let mut response = router.oneshot(request).await?;
    if last.is_some() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response.map(|body| Answer { body, watch }))
}

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Request,
    Idle,
}

/// The state of a connection and when it must have ended.
struct Watch {
    limits: Limits,
    state: Mutex<(State, Instant)>,
    requests: Mutex<Requests>,
}

/// How many requests hyper has found, and which will be the last.
#[derive(Default)]
struct Requests {
    found: u64,
    last: Option<Last>,
}

impl Watch {
    /// A connection that says nothing has begun its first head all the same.
    fn new(limits: Limits) -> Self {
        let due = Instant::now() + limits.head;
        Self {
            limits,
            state: Mutex::new((State::Head, due)),
            requests: Mutex::default(),
        }
    }

    fn due(&self) -> Instant {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn enter(&self, next: State) {
        let span = match next {
            State::Head => self.limits.head,
            State::Request => self.limits.request,
            State::Idle => self.limits.idle,
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (next, Instant::now() + span);
    }

    /// A request has begun; tells if it is the last one.
    fn next_request(&self) -> Option<Last> {
        self.enter(State::Request);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.found += 1;
        let before = requests.found - 1;
        requests.last.filter(|last| last.after == before)
    }

    /// The first bytes after idleness begin a head; further ones gain it no time.
    fn received(&self, last: Option<Last>) {
        if last.is_some() {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.last = last;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).0;
        if state == State::Idle {
            self.enter(State::Head);
        }
    }
}

/// The body of an answer; when hyper is done with it, the connection is idle.
struct Answer {
    body: Body,
    watch: Arc<Watch>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.watch.enter(State::Idle);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that tells its [`Watch`] when bytes arrive, and hyper only what is well framed.
struct Watched {
    stream: TcpStream,
    framing: Framing,
    watch: Arc<Watch>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let passed = this.framing.pass(buffer.remaining());
            if !passed.is_empty() {
                buffer.put_slice(passed);
                return Poll::Ready(Ok(()));
            }
            // hyper's buffer serves to read into, and gets back what hyper may have.
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let received = &buffer.filled()[before..];
            if received.is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.framing.receive(received);
            this.watch.received(this.framing.last());
            buffer.set_filled(before);
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
