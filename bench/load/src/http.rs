//! A lean HTTP/1.1 client: one persistent connection, one request at a time, bodies with a
//! Content-Length. It talks to loopback addresses only.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Parses `http://127.0.0.1:8080`; any host that is not this machine's loopback is refused.
pub fn parse_target(url: &str) -> anyhow::Result<SocketAddr> {
    let authority = url
        .strip_prefix("http://")
        .context("the target begins with `http://`")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let address = match authority.strip_prefix("localhost:") {
        Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?)),
        None => authority
            .parse()
            .context("the target is an IP address and a port, like http://127.0.0.1:8080")?,
    };
    if !address.ip().is_loopback() {
        bail!(
            "load is sent to loopback addresses only, not to {}",
            address.ip()
        );
    }
    Ok(address)
}

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection could be made.
    Connect,
    /// The connection ended before the answer.
    Closed,
    /// The deadline passed.
    Timeout,
    /// The answer is not HTTP/1.1 with a Content-Length.
    Malformed,
}

/// One connection, opened when needed and kept.
#[derive(Debug)]
pub struct Client {
    target: SocketAddr,
    deadline: Duration,
    headers: String,
    stream: Option<TcpStream>,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl Client {
    /// A client without a connection yet; each request ends within the deadline.
    pub fn new(target: SocketAddr, deadline: Duration) -> Client {
        Client {
            target,
            deadline,
            headers: String::new(),
            stream: None,
            request: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Sends these lines, each with its line break, with every post.
    pub fn set_headers(&mut self, lines: String) {
        self.headers = lines;
    }

    /// Opens the connection, so that the first request does not have to.
    pub async fn connect(&mut self) -> Result<(), Fault> {
        match tokio::time::timeout(self.deadline, TcpStream::connect(self.target)).await {
            Ok(Ok(stream)) if stream.set_nodelay(true).is_ok() => {
                self.stream = Some(stream);
                Ok(())
            }
            _ => Err(Fault::Connect),
        }
    }

    /// Asks for a path.
    pub async fn get(&mut self, path: &str) -> Result<Answer, Fault> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.target);
        self.exchange(&head, "").await
    }

    /// Posts JSON to a path.
    pub async fn post(&mut self, path: &str, json: &str) -> Result<Answer, Fault> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             {}Content-Length: {}\r\n\r\n",
            self.target,
            self.headers,
            json.len()
        );
        self.exchange(&head, json).await
    }

    async fn exchange(&mut self, head: &str, body: &str) -> Result<Answer, Fault> {
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body.as_bytes());
        if self.stream.as_ref().is_none_or(ended) {
            self.connect().await?;
        }
        let Some(mut stream) = self.stream.take() else {
            return Err(Fault::Connect);
        };
        let talk = talk(&mut stream, &self.request, &mut self.received);
        let (answer, keep) = tokio::time::timeout(self.deadline, talk)
            .await
            .unwrap_or(Err(Fault::Timeout))?;
        self.stream = keep.then_some(stream);
        Ok(answer)
    }
}

/// Whether the server has closed an idle connection; a request on it could only fail.
fn ended(stream: &TcpStream) -> bool {
    let error = stream.try_read(&mut [0; 1]).err();
    error.is_none_or(|error| error.kind() != std::io::ErrorKind::WouldBlock)
}

async fn talk(
    stream: &mut TcpStream,
    request: &[u8],
    received: &mut Vec<u8>,
) -> Result<(Answer, bool), Fault> {
    received.clear();
    stream.write_all(request).await.or(Err(Fault::Closed))?;
    loop {
        if stream.read_buf(received).await.or(Err(Fault::Closed))? == 0 {
            return Err(Fault::Closed);
        }
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = Head::parse(&received[..end])?;
        if received.len() >= end + 4 + head.length {
            let body = received[end + 4..end + 4 + head.length].to_vec();
            return Ok((
                Answer {
                    status: head.status,
                    head: String::from_utf8_lossy(&received[..end]).into_owned(),
                    body,
                },
                head.keep,
            ));
        }
    }
}

struct Head {
    status: u16,
    length: usize,
    keep: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Head, Fault> {
        let text = std::str::from_utf8(bytes).or(Err(Fault::Malformed))?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3));
        let status = status
            .and_then(|digits| digits.parse().ok())
            .ok_or(Fault::Malformed)?;
        let (mut length, mut keep) = ((status == 204).then_some(0), true);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                keep = !value.trim().eq_ignore_ascii_case("close");
            }
        }
        Ok(Head {
            status,
            length: length.ok_or(Fault::Malformed)?,
            keep,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_a_target() {
        for good in [
            "http://127.0.0.1:8080",
            "http://[::1]:80/",
            "http://localhost:8080",
        ] {
            assert!(parse_target(good).is_ok(), "{good}");
        }
        for bad in [
            "http://192.0.2.1:80",
            "http://0.0.0.0:80",
            "http://example.com:80",
            "http://localhost.example.com:80",
            "http://127.0.0.1",
            "https://127.0.0.1:443",
            "127.0.0.1:8080",
        ] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_head_gives_status_length_and_whether_the_connection_stays() {
        let head = Head::parse(b"HTTP/1.1 202 Accepted\r\ncontent-LENGTH: 7").unwrap();
        assert_eq!((head.status, head.length, head.keep), (202, 7, true));
        let head = Head::parse(b"HTTP/1.1 503 \r\nConnection: Close\r\nContent-Length: 0").unwrap();
        assert_eq!((head.status, head.length, head.keep), (503, 0, false));
        for malformed in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
            "SSH-2.0-x",
            "",
        ] {
            assert_eq!(
                Head::parse(malformed.as_bytes()).err(),
                Some(Fault::Malformed)
            );
        }
    }
}
