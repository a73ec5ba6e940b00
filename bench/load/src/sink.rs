//! An SMTP server on loopback that accepts every mail (only `unknown@` any domain is no mailbox),
//! reads recipient and code, and remembers the instant at which it had answered the final dot with 250. It keeps no mail.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::mime;

/// The longest line taken from a client; a longer one ends the connection.
const LONGEST_LINE: u64 = 64 * 1024;
/// The largest mail taken; a larger one ends the connection.
const LARGEST_MAIL: usize = 1024 * 1024;

const CAPABILITIES: &str = "250-sink.invalid\r\n250-PIPELINING\r\n250 8BITMIME";

/// Mailboxes that do not exist.
const UNKNOWN: &str = "unknown@";

/// What is remembered of an accepted mail.
#[derive(Debug)]
pub struct Mail {
    /// When the 250 to the final dot had been written.
    pub accepted: Instant,
    /// The code in its text, if there was one.
    pub code: Option<String>,
}

/// How many mails came, since the sink was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All accepted mails, one per recipient.
    pub mails: u32,
    /// Mails to an address that had its mail already.
    pub duplicates: u32,
    /// Mails to an address that nobody expected.
    pub unexpected: u32,
    /// Mails in whose text no code was found.
    pub without_code: u32,
}

impl Counts {
    /// What came since an earlier count.
    #[must_use]
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            mails: self.mails - earlier.mails,
            duplicates: self.duplicates - earlier.duplicates,
            unexpected: self.unexpected - earlier.unexpected,
            without_code: self.without_code - earlier.without_code,
        }
    }
}

/// A running SMTP server; it ends when this is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    _server: JoinSet<()>,
}

impl Sink {
    /// Listens on a loopback port (0 = a free one); every reply is held back for `delay`.
    pub async fn start(port: u16, delay: Duration) -> io::Result<Sink> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let ledger = Arc::new(Ledger::default());
        let mut server = JoinSet::new();
        server.spawn(accept(listener, Arc::clone(&ledger), delay));
        Ok(Sink {
            address,
            ledger,
            _server: server,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who expects mail and what came.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

/// Who expects mail and what came.
#[derive(Debug, Default)]
pub struct Ledger {
    /// `None` once the first mail to that address has come.
    expected: Mutex<HashMap<String, Option<oneshot::Sender<Mail>>>>,
    mails: AtomicU32,
    duplicates: AtomicU32,
    unexpected: AtomicU32,
    without_code: AtomicU32,
}

impl Ledger {
    /// Expects one mail to an address; the receiver gets it.
    pub fn expect(&self, address: &str) -> oneshot::Receiver<Mail> {
        let (sender, receiver) = oneshot::channel();
        self.expected().insert(address.to_owned(), Some(sender));
        receiver
    }

    /// No mail will come to that address: who waits for it is told.
    fn forget(&self, address: &str) {
        self.expected().remove(address);
    }

    /// What came so far.
    pub fn counts(&self) -> Counts {
        Counts {
            mails: self.mails.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            unexpected: self.unexpected.load(Ordering::Relaxed),
            without_code: self.without_code.load(Ordering::Relaxed),
        }
    }

    fn record(&self, recipient: &str, mail: Mail) {
        if mail.code.is_none() {
            increment(&self.without_code);
        }
        match self.expected().get_mut(recipient).map(Option::take) {
            // The receiver may be gone: that mail came, and nobody waits for it any more.
            Some(Some(waiting)) => drop(waiting.send(mail)),
            Some(None) => increment(&self.duplicates),
            None => increment(&self.unexpected),
        }
        increment(&self.mails);
    }

    fn expected(&self) -> MutexGuard<'_, HashMap<String, Option<oneshot::Sender<Mail>>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn increment(count: &AtomicU32) {
    count.fetch_add(1, Ordering::Relaxed);
}

async fn accept(listener: TcpListener, ledger: Arc<Ledger>, delay: Duration) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while sessions.try_join_next().is_some() {}
        let ledger = Arc::clone(&ledger);
        sessions.spawn(async move {
            if let Ok(session) = Session::new(stream, ledger, delay) {
                // A client that breaks off loses its own mail, which the counts then show.
                drop(session.converse().await);
            }
        });
    }
}

struct Session {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    ledger: Arc<Ledger>,
    delay: Duration,
    has_sender: bool,
    recipients: Vec<String>,
}

impl Session {
    fn new(stream: TcpStream, ledger: Arc<Ledger>, delay: Duration) -> io::Result<Session> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let reader = BufReader::new(reader);
        Ok(Session {
            reader,
            writer,
            ledger,
            delay,
            has_sender: false,
            recipients: Vec::new(),
        })
    }

    async fn converse(mut self) -> io::Result<()> {
        self.reply("220 sink.invalid ESMTP").await?;
        loop {
            let line = self.line().await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = line
                .split([' ', ':'])
                .next()
                .unwrap_or("")
                .to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => self.reply(CAPABILITIES).await?,
                "HELO" => self.reply("250 sink.invalid").await?,
                "MAIL" => {
                    self.reset();
                    self.has_sender = true;
                    self.reply("250 2.1.0 sender ok").await?;
                }
                "RCPT" => self.recipient(&line).await?,
                "DATA" if self.recipients.is_empty() => self.reply("503 5.5.1 RCPT first").await?,
                "DATA" => self.data().await?,
                "RSET" => {
                    self.reset();
                    self.reply("250 2.0.0 reset").await?;
                }
                "NOOP" => self.reply("250 2.0.0 ok").await?,
                "QUIT" => return self.reply("221 2.0.0 bye").await,
                _ => self.reply("502 5.5.1 unknown command").await?,
            }
        }
    }

    async fn recipient(&mut self, line: &str) -> io::Result<()> {
        if !self.has_sender {
            return self.reply("503 5.5.1 MAIL first").await;
        }
        let path = line
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        match path {
            Some((address, _)) if address.starts_with(UNKNOWN) => {
                self.reply("550 5.1.1 no such mailbox").await?;
                self.ledger.forget(address);
                Ok(())
            }
            Some((address, _)) if address.contains('@') => {
                self.recipients.push(address.to_owned());
                self.reply("250 2.1.5 recipient ok").await
            }
            _ => self.reply("501 5.1.3 no address").await,
        }
    }

    async fn data(&mut self) -> io::Result<()> {
        self.reply("354 end with a dot").await?;
        let mut message = Vec::new();
        loop {
            let line = self.line().await?;
            if line == b".\r\n" {
                break;
            }
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            if message.len() > LARGEST_MAIL {
                return Err(io::Error::other("the mail is too large"));
            }
        }
        let code = mime::code_of(&message);
        self.reply("250 2.0.0 accepted").await?;
        let accepted = Instant::now();
        for recipient in &self.recipients {
            self.ledger.record(
                recipient,
                Mail {
                    accepted,
                    code: code.clone(),
                },
            );
        }
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.has_sender = false;
        self.recipients.clear();
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::with_capacity(128);
        (&mut self.reader)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if line.ends_with(b"\n") {
            Ok(line)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    async fn reply(&mut self, text: &str) -> io::Result<()> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        self.writer
            .write_all(format!("{text}\r\n").as_bytes())
            .await
    }
}
