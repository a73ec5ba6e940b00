//! A small otpost of the tests: answers HTTP, mails codes over SMTP, and misbehaves on demand.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// What the fake does wrong; by default nothing. "Every" counts requests for a code, 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behaviour {
    /// Accepts, but sends no mail.
    pub lose_every: u32,
    /// Sends the mail twice.
    pub double_every: u32,
    /// Answers 503.
    pub refuse_every: u32,
    /// Finds right codes incorrect.
    pub denies: bool,
    /// Takes so much longer to find a code incorrect where one is live.
    pub tells: Duration,
    /// Is stuck for so long before the first answer.
    pub stall: Duration,
}

/// A running fake; it ends when dropped.
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
    _server: JoinSet<()>,
}

struct State {
    behaviour: Behaviour,
    asked: AtomicU32,
    codes: Mutex<HashMap<String, String>>,
    outbox: UnboundedSender<Vec<String>>,
}

impl Fake {
    /// Serves on an address and mails to another.
    pub async fn start(
        listen: SocketAddr,
        smtp: SocketAddr,
        behaviour: Behaviour,
    ) -> io::Result<Fake> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (outbox, mails) = unbounded_channel();
        let (asked, codes) = (AtomicU32::new(0), Mutex::default());
        let state = Arc::new(State {
            behaviour,
            asked,
            codes,
            outbox,
        });
        let mut server = JoinSet::new();
        server.spawn(mail_all(mails, smtp));
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                connections.spawn(async move { drop(state.serve(stream).await) });
            }
        });
        Ok(Fake {
            address,
            _server: server,
        })
    }
}

impl State {
    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                if stream.read_line(&mut head).await? == 0 {
                    return Ok(());
                }
                if let Some(value) = head[start..].strip_prefix("Content-Length: ") {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let (status, text) = self.answer(&head, &String::from_utf8_lossy(&body)).await;
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            stream.write_all(answer.as_bytes()).await?;
        }
    }

    async fn answer(&self, head: &str, body: &str) -> (u16, &'static str) {
        let strings: Vec<&str> = body.split('"').collect();
        match (head.split(' ').nth(1), &strings[..]) {
            (Some("/readyz"), _) => (200, "ready"),
            (Some("/otp/generate"), [_, "email", _, address, _]) => self.generate(address).await,
            (Some("/otp/verify"), [_, "email", _, address, _, "otp", _, code, _]) => {
                let answer = self.verify(address, code);
                if answer.0 == 422 && self.has_code(address) {
                    tokio::time::sleep(self.behaviour.tells).await;
                }
                answer
            }
            _ => (400, "bad request"),
        }
    }

    async fn generate(&self, address: &str) -> (u16, &'static str) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if asked == 1 && !self.behaviour.stall.is_zero() {
            tokio::time::sleep(self.behaviour.stall).await;
        }
        let is_every = |nth: u32| nth != 0 && asked.is_multiple_of(nth);
        if is_every(self.behaviour.refuse_every) {
            return (503, "busy");
        }
        let code = format!("{:06}", (asked.wrapping_mul(7919)) % 1_000_000);
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.insert(address.to_owned(), code.clone());
        if !is_every(self.behaviour.lose_every) {
            let copies = if is_every(self.behaviour.double_every) {
                2
            } else {
                1
            };
            drop(self.outbox.send(dialogue(address, &code, copies)));
        }
        (202, "OTP is on its way")
    }

    fn has_code(&self, address: &str) -> bool {
        let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.contains_key(address)
    }

    fn verify(&self, address: &str, code: &str) -> (u16, &'static str) {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.behaviour.denies && codes.get(address).is_some_and(|live| live == code) {
            codes.remove(address);
            return (200, "OTP is correct");
        }
        (422, "OTP is incorrect")
    }
}

/// What the client of one mail says, each entry after the reply to the one before.
fn dialogue(address: &str, code: &str, copies: usize) -> Vec<String> {
    let (begin, end) = code.split_at(3);
    let mut lines = vec![
        "EHLO fake".to_owned(),
        "MAIL FROM:<no-reply@example.com>".to_owned(),
    ];
    lines.extend(vec![format!("RCPT TO:<{address}>"); copies]);
    lines.push("DATA".to_owned());
    lines.push(format!(
        "Subject: 999999 is not the code\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/html\r\n\r\n<p>888888</p>\r\n\
         --b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         For {address}:\r\n..\r\n{begin}=\r\n{end}\r\n--b--\r\n."
    ));
    lines.push("QUIT".to_owned());
    lines
}

async fn mail_all(mut mails: UnboundedReceiver<Vec<String>>, smtp: SocketAddr) {
    let mut deliveries = JoinSet::new();
    while let Some(dialogue) = mails.recv().await {
        while deliveries.try_join_next().is_some() {}
        deliveries.spawn(async move { drop(deliver(dialogue, smtp).await) });
    }
}

async fn deliver(dialogue: Vec<String>, smtp: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(smtp).await?);
    hear(&mut stream).await?;
    for line in dialogue {
        stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        hear(&mut stream).await?;
    }
    Ok(())
}

async fn hear(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut line = String::new();
    while line.as_bytes().get(3) != Some(&b' ') {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    if line.starts_with(['2', '3']) {
        Ok(())
    } else {
        Err(io::Error::other(line))
    }
}
