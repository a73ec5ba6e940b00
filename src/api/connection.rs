//! One connection, with deadlines of our own. It is always in one of three states, and each ends: the
//! head of a request arrives, a request is being answered, nothing happens. hyper's own timer knows
//! only the first and begins it with the idle time, so that the states are kept here and hyper's
//! timer is off. Behind the last answer the connection lingers, which ends as well.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy, sink};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::framing::{Framing, HEAD_BYTES, HEAD_FIELDS, Last};
use super::server::{Limits, Peer};

/// What hyper reads ahead on one connection.
const BUFFER_BYTES: usize = 32 * 1024;
/// What is read behind the last answer: the whole of a body that somebody sends by mistake, and little
/// enough to be thrown away within milliseconds.
pub const LINGER_BYTES: usize = 2 * 1024 * 1024;

/// Serves one connection until it ends, a deadline passes or the stop lets it end.
pub async fn serve(
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
    let mut served = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut deadline = pin!(sleep_until(watch.due()));
    let mut stopped = pin!(stop.cancelled());
    let mut is_stopping = false;
    let is_in_time = poll_fn(|context| {
        if !is_stopping && stopped.as_mut().poll(context).is_ready() {
            is_stopping = true;
            Pin::new(&mut served).graceful_shutdown();
        }
        // An error is the client's: it went away or does not speak HTTP.
        if Pin::new(&mut served).poll(context).is_ready() {
            return Poll::Ready(true);
        }
        // hyper may have moved the deadline while it was polled.
        let due = watch.due();
        if deadline.deadline() != due {
            deadline.as_mut().reset(due);
        }
        deadline.as_mut().poll(context).map(|()| false)
    })
    .await;
    if is_in_time {
        let stream = served.into_parts().io.into_inner().stream;
        let until = watch.due().min(Instant::now() + limits.linger);
        linger(stream, until, &stop).await;
    }
}

/// Lets the client have the last answer: a socket that is closed with bytes in it that nobody read
/// resets the connection, and then the answer is lost to a client that still sends (RFC 9112
/// section 9.6). So only our side is closed, and what still comes is thrown away until the client
/// closes its own.
async fn linger(mut stream: TcpStream, until: Instant, stop: &CancellationToken) {
    let _ = stream.shutdown().await;
    let (mut rest, mut nowhere) = (stream.take(LINGER_BYTES as u64), sink());
    tokio::select! {
        _ = copy(&mut rest, &mut nowhere) => {}
        () = sleep_until(until) => {}
        () = stop.cancelled() => {}
    }
}

/// Hands a request to the router and keeps the connection's state.
async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    router: Router,
    watch: Arc<Watch>,
) -> Result<hyper::Response<Followed<Body>>, Infallible> {
    let last = watch.next_request();
    let mut request = request.map(|body| {
        Body::new(Followed {
            body,
            watch: watch.clone(),
            end: Watch::asked,
        })
    });
    request.extensions_mut().insert(peer);
    if let Some(flaw) = last.and_then(|last| last.flaw) {
        request.extensions_mut().insert(flaw);
    }
    let mut response = router.oneshot(request).await?;
    if last.is_some() || watch.has_left_a_body() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response.map(|body| Followed {
        body,
        watch,
        end: |watch, _body| watch.answered(),
    }))
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

/// How many requests hyper has found, and what the connection holds beyond them.
#[derive(Default)]
struct Requests {
    found: u64,
    last: Option<Last>,
    has_begun_a_head: bool,
    has_left_a_body: bool,
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

    /// The router is done with the body of a request.
    fn asked(&self, body: &Incoming) {
        if !body.is_end_stream() {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.has_left_a_body = true;
        }
    }

    /// Whether a body was not read to its end. hyper would go on to the next request, if the rest of the
    /// body is there, without waiting for the client to take its answer (and keep as many answers as
    /// somebody cares to ask for), or close the connection without saying so.
    fn has_left_a_body(&self) -> bool {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.has_left_a_body
    }

    /// The first bytes after idleness begin a head; further ones gain it no time.
    fn received(&self, framing: &Framing) {
        {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.last = framing.last();
            requests.has_begun_a_head = framing.has_begun_a_head();
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).0;
        if state == State::Idle {
            self.enter(State::Head);
        }
    }

    /// hyper is done with an answer. A head that has begun along with the request gains no idleness.
    fn answered(&self) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        self.enter(if requests.has_begun_a_head {
            State::Head
        } else {
            State::Idle
        });
    }
}

/// A body that tells the [`Watch`] when hyper or the router is done with it.
struct Followed<B: HttpBody> {
    body: B,
    watch: Arc<Watch>,
    end: fn(&Watch, &B),
}

impl<B: HttpBody> Drop for Followed<B> {
    fn drop(&mut self) {
        (self.end)(&self.watch, &self.body);
    }
}

impl<B: HttpBody + Unpin> HttpBody for Followed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
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
            this.watch.received(&this.framing);
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
