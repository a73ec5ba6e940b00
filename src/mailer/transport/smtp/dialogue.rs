//! One connection and what is said over it. Every step has a deadline, and a failure knows its
//! step, since the same answer means another thing at another step.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::Mechanism;
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::{Response, Severity};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Deadlines;
use super::guard::LineByLine;
use super::server::{Protection, Server};
use crate::mailer::error::{Cause, Failure, Reply, Step};

/// How long a server gets to answer QUIT: nothing hangs on it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A mail's envelope and bytes.
pub(super) struct Letter<'a> {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) data: &'a str,
    /// Whether the recipient goes beyond ASCII.
    pub(super) is_internationalized: bool,
}

/// The end of one mail's time, within which every step has its own.
pub(super) struct Deadline {
    ends: Instant,
    limits: Deadlines,
}

impl Deadline {
    pub(super) fn new(limits: Deadlines, until: Option<Instant>) -> Self {
        let whole = Instant::now() + limits.whole;
        let ends = until.map_or(whole, |until| until.min(whole));
        Self { ends, limits }
    }

    /// Waits for `work` at most `limit`, and never beyond the end.
    pub(super) async fn bound<F: Future>(
        &self,
        step: Step,
        limit: Duration,
        work: F,
    ) -> Result<F::Output, Failure> {
        let ends = self.ends.min(Instant::now() + limit);
        timeout_at(ends, work).await.map_err(|_elapsed| Failure {
            step,
            cause: Cause::Deadline,
        })
    }

    /// A command and its answer.
    async fn command<T>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T, lettre::transport::smtp::Error>>,
    ) -> Result<T, Failure> {
        let answer = self.bound(step, self.limits.command, work).await?;
        answer.map_err(|error| failure(step, &error))
    }
}

/// A connection that is logged in. Dropping it closes it, which is what happens to one whose
/// dialogue was cut short: only [`super::Smtp`] keeps one, after an orderly end.
pub(super) struct Session {
    connection: AsyncSmtpConnection,
    /// How many mails it was asked to carry.
    pub(super) mails: u32,
    /// Since when it is idle.
    pub(super) since: Instant,
    /// Whether the server still has the beginning of a mail that it did not accept.
    pub(super) unclean: bool,
}

impl Session {
    /// Connects, encrypts and logs in.
    pub(super) async fn open(server: &Server, deadline: &Deadline) -> Result<Self, Failure> {
        let mut connection = deadline
            .bound(
                Step::Connect,
                deadline.limits.connect,
                connect(server, deadline.limits.connect / 2),
            )
            .await??;
        if let Protection::StartTls(tls) = &server.protection {
            start_tls(&mut connection, server, tls, deadline).await?;
        }
        if let Some(credentials) = server.credentials() {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            let offered = mechanisms
                .iter()
                .any(|mechanism| connection.server_info().supports_auth_mechanism(*mechanism));
            if !offered {
                return Err(not_offered(Step::Login));
            }
            let login = connection.auth(&mechanisms, &credentials);
            let answer = deadline.command(Step::Login, login).await?;
            expect(Severity::PositiveCompletion, Step::Login, &answer)?;
        }
        Ok(Self {
            connection,
            mails: 0,
            since: Instant::now(),
            unclean: false,
        })
    }

    /// Hands one mail over.
    pub(super) async fn mail(
        &mut self,
        letter: &Letter<'_>,
        deadline: &Deadline,
    ) -> Result<(), Failure> {
        use Severity::{PositiveCompletion, PositiveIntermediate};

        let parameters = self.parameters(letter)?;
        self.mails += 1;
        if self.unclean {
            let answer = deadline
                .command(Step::Reset, self.connection.command(Rset))
                .await?;
            expect(PositiveCompletion, Step::Reset, &answer)?;
        }
        let sender = Mail::new(Some(letter.from.clone()), parameters);
        let answer = deadline
            .command(Step::Sender, self.connection.command(sender))
            .await?;
        expect(PositiveCompletion, Step::Sender, &answer)?;

        let recipient = Rcpt::new(letter.to.clone(), Vec::new());
        let answer = deadline
            .command(Step::Recipient, self.connection.command(recipient))
            .await?;
        expect(PositiveCompletion, Step::Recipient, &answer)?;

        let answer = deadline
            .command(Step::Data, self.connection.command(Data))
            .await?;
        expect(PositiveIntermediate, Step::Data, &answer)?;
        self.content(letter.data, deadline).await
    }

    /// What MAIL FROM must announce: nothing, unless the recipient goes beyond ASCII. Then the
    /// header that names it does, too (RFC 6531 section 3.6).
    fn parameters(&self, letter: &Letter<'_>) -> Result<Vec<MailParameter>, Failure> {
        if !letter.is_internationalized {
            return Ok(Vec::new());
        }
        let info = self.connection.server_info();
        let needed = [Extension::EightBitMime, Extension::SmtpUtfEight];
        if !needed.into_iter().all(|each| info.supports_feature(each)) {
            return Err(Failure {
                step: Step::Recipient,
                cause: Cause::NoSmtputf8,
            });
        }
        Ok(vec![
            MailParameter::Body(MailBodyParameter::EightBitMime),
            MailParameter::SmtpUtfEight,
        ])
    }

    /// Sends the message and its final dot. Whatever fails here may have been accepted.
    async fn content(&mut self, data: &str, deadline: &Deadline) -> Result<(), Failure> {
        let stuffed = stuffed(data);
        let limit = deadline.limits.final_dot;
        let answer = deadline
            .bound(Step::FinalDot, limit, self.connection.command(stuffed))
            .await?
            .map_err(|error| failure(Step::FinalDot, &error))?;
        expect(Severity::PositiveCompletion, Step::FinalDot, &answer)
    }

    /// Takes leave. The connection is gone afterwards in any case.
    pub(super) async fn quit(mut self) {
        let farewell = timeout_at(Instant::now() + FAREWELL, self.connection.quit()).await;
        // Whether the server heard it changes nothing.
        drop(farewell);
    }
}

/// The message with its dots doubled (RFC 5321 section 4.5.2) and its final dot, in one piece:
/// lettre writes the dot by itself, and TCP holds such a small write back until the other side
/// has confirmed the one before, which costs 40 ms a mail.
fn stuffed(data: &str) -> String {
    let data = data.strip_suffix("\r\n").unwrap_or(data);
    let first = if data.starts_with('.') { "." } else { "" };
    format!("{first}{}\r\n.\r\n", data.replace("\r\n.", "\r\n.."))
}

/// TCP to the first address that answers, TLS if it comes first, greeting and EHLO.
async fn connect(server: &Server, each: Duration) -> Result<AsyncSmtpConnection, Failure> {
    let addresses = server.addresses().await.map_err(|error| Failure {
        step: Step::Connect,
        cause: Cause::Network(error.kind()),
    })?;
    let connected = match &server.protection {
        Protection::Implicit(tls) => {
            AsyncSmtpConnection::connect_tokio1(
                addresses.as_slice(),
                Some(each),
                &server.hello,
                Some(tls.clone()),
                None,
            )
            .await
        }
        Protection::StartTls(_) | Protection::Loopback => {
            let stream = LineByLine::new(tcp(&addresses, each).await?);
            AsyncSmtpConnection::connect_with_transport(Box::new(stream), &server.hello).await
        }
    };
    connected.map_err(|error| failure(Step::Connect, &error))
}

/// Tries one address after the other; each has its own time, so that a dead one does not eat up
/// the others'.
async fn tcp(addresses: &[std::net::SocketAddr], each: Duration) -> Result<TcpStream, Failure> {
    let mut kind = io::ErrorKind::NotFound;
    for address in addresses {
        match timeout_at(Instant::now() + each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => kind = error.kind(),
            Err(_elapsed) => kind = io::ErrorKind::TimedOut,
        }
    }
    Err(Failure {
        step: Step::Connect,
        cause: Cause::Network(kind),
    })
}

async fn start_tls(
    connection: &mut AsyncSmtpConnection,
    server: &Server,
    tls: &TlsParameters,
    deadline: &Deadline,
) -> Result<(), Failure> {
    if !connection.can_starttls() {
        return Err(not_offered(Step::StartTls));
    }
    let upgrade = connection.starttls(tls.clone(), &server.hello);
    deadline
        .bound(Step::StartTls, deadline.limits.connect, upgrade)
        .await?
        .map_err(|error| failure(Step::StartTls, &error))
}

fn not_offered(step: Step) -> Failure {
    Failure {
        step,
        cause: Cause::NotOffered,
    }
}

/// lettre takes 2yz and 3yz alike for consent.
fn expect(severity: Severity, step: Step, answer: &Response) -> Result<(), Failure> {
    if answer.code().severity == severity {
        return Ok(());
    }
    Err(Failure {
        step,
        cause: Cause::Protocol,
    })
}

/// Keeps what is safe to tell of an error: codes and kinds, never the server's words.
fn failure(step: Step, error: &lettre::transport::smtp::Error) -> Failure {
    let cause = if let Some(code) = error.status() {
        let text = error.source().map(ToString::to_string).unwrap_or_default();
        Cause::Reply(Reply::new(code.into(), &text))
    } else if error.is_response() {
        // lettre says the same of a stream that ended and of one that is not SMTP.
        Cause::Network(io::ErrorKind::UnexpectedEof)
    } else {
        of_the_stream(error)
    };
    Failure { step, cause }
}

/// Looks through the chain of sources for the error of the stream or of TLS.
fn of_the_stream(error: &lettre::transport::smtp::Error) -> Cause {
    let mut source = error.source();
    let mut kind = None;
    while let Some(inner) = source {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Cause::Tls(tls.to_string());
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            let wrapped = io.get_ref().and_then(|inner| inner.downcast_ref());
            if let Some(tls) = wrapped {
                let tls: &rustls::Error = tls;
                return Cause::Tls(tls.to_string());
            }
            kind = Some(io.kind());
        }
        source = inner.source();
    }
    kind.map_or(Cause::Protocol, Cause::Network)
}
