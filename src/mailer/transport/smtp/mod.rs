//! SMTP to the next server, by lettre, over a bounded number of connections that are used again.
//!
//! It promises: never more open connections than allowed; nothing, and no login, in clear over a
//! network; an answer before the deadline; no use of a connection whose dialogue was cut short.
//! lettre's own pool bounds no connections and tells no step, hence the dialogue of our own.

mod dialogue;
mod guard;
mod server;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::dialogue::{Deadline, Letter, Session};
use self::server::Server;
use super::Transport;
use crate::mailer::Message;
use crate::mailer::error::{Cause, Failure, MailError, Step};
use crate::mailer::mime;

/// How the dialogue with the server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// STARTTLS, without which nothing else is said.
    StartTls,
    /// TLS from the first byte.
    Implicit,
    /// None, which is possible on the loopback address only.
    PlainLoopback,
}

/// User name and password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: SecretString,
}

/// How long the steps of one mail may take. RFC 5321 section 4.5.3.2 allows minutes, which is
/// longer than a code lives: these are for one's own or a hired relay.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// TCP, TLS, greeting and EHLO.
    pub connect: Duration,
    /// Every command and its answer.
    pub command: Duration,
    /// The answer to the final dot.
    pub final_dot: Duration,
    /// All of it, with the wait for a free connection.
    pub whole: Duration,
}

impl Default for Deadlines {
    /// A job ends its mail earlier if its attempt has less time; see `Message::until`.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(4),
            command: Duration::from_secs(4),
            final_dot: Duration::from_secs(6),
            whole: Duration::from_secs(7),
        }
    }
}

/// Which server, and how to deal with it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the dialogue is protected.
    pub security: Security,
    /// Name or address of the server, an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The login, if it wants one.
    pub credentials: Option<Credentials>,
    /// What EHLO says: the domain of the sender, since a machine's own name tells too much.
    pub hello: String,
    /// The most connections that are open at once.
    pub connections: usize,
    /// PEM file of the certificate authorities to trust *instead of* the system's.
    pub ca_file: Option<PathBuf>,
    /// How long the steps may take.
    pub deadlines: Deadlines,
    /// How long an unused connection stays open.
    pub idle: Duration,
    /// The most mails over one connection.
    pub mails_per_connection: u32,
}

impl Settings {
    /// A server with everything else as usual.
    pub fn new(security: Security, host: &str, port: u16, hello: &str) -> Self {
        Self {
            security,
            host: host.to_owned(),
            port,
            credentials: None,
            hello: hello.to_owned(),
            connections: 10,
            ca_file: None,
            deadlines: Deadlines::default(),
            idle: Duration::from_secs(60),
            mails_per_connection: 100,
        }
    }
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Mail in clear would leave the machine.
    #[error("without TLS, the host must be a loopback address or `localhost`")]
    NotLoopback,
    /// No connection could ever be opened.
    #[error("at least one connection is needed")]
    NoConnections,
    /// The file with the certificate authorities cannot be used.
    #[error("the CA file {path}: {problem}", path = .path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
}

/// The SMTP transport.
pub struct Smtp {
    server: Server,
    limits: Limits,
    turns: Semaphore,
    idle: Mutex<Vec<Session>>,
    put_back: Notify,
}

#[derive(Clone, Copy)]
struct Limits {
    deadlines: Deadlines,
    idle: Duration,
    mails: u32,
}

impl Smtp {
    /// Reads the CA file and sets up TLS; connects to nothing yet.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        if settings.connections == 0 {
            return Err(SettingsError::NoConnections);
        }
        Ok(Self {
            limits: Limits {
                deadlines: settings.deadlines,
                idle: settings.idle,
                mails: settings.mails_per_connection,
            },
            turns: Semaphore::new(settings.connections.min(Semaphore::MAX_PERMITS)),
            server: Server::new(settings)?,
            idle: Mutex::default(),
            put_back: Notify::new(),
        })
    }

    /// Closes connections that nobody used for a while, until `stop`; then closes all idle ones.
    /// Without it they are closed only when their turn comes.
    pub async fn keep_tidy(&self, stop: &CancellationToken) {
        loop {
            let due = self.with_idle(|idle| idle.first().map(|oldest| oldest.since));
            let next = async {
                match due {
                    Some(since) => tokio::time::sleep_until(since + self.limits.idle).await,
                    None => std::future::pending().await,
                }
            };
            // Nothing is lost whichever comes first: the state is looked at anew.
            tokio::select! {
                () = stop.cancelled() => break,
                () = next => self.close_one(true).await,
                () = self.put_back.notified() => {}
            }
        }
        while self.with_idle(|idle| !idle.is_empty()) {
            self.close_one(false).await;
        }
    }

    /// Closes the connection that is idle for longest. It holds a turn meanwhile, so that nobody
    /// opens another one beyond the bound.
    async fn close_one(&self, only_if_due: bool) {
        let Ok(_turn) = self.turns.acquire().await else {
            return;
        };
        let oldest = self.with_idle(|idle| {
            let oldest = idle.first()?;
            let is_due = oldest.since.elapsed() >= self.limits.idle;
            (is_due || !only_if_due).then(|| idle.remove(0))
        });
        if let Some(session) = oldest {
            session.quit().await;
        }
    }

    async fn deliver(&self, letter: &Letter<'_>, until: Instant) -> Result<(), Failure> {
        let deadline = Deadline::new(self.limits.deadlines, Some(until));
        let _turn = self.turn(&deadline).await?;
        if let Some(mut session) = self.take_idle().await {
            match session.mail(letter, &deadline).await {
                // It died of old age before it had the mail: a fresh one gets it.
                Err(failure) if is_stale(&failure) => {}
                outcome => return self.done_with(session, outcome),
            }
        }
        let mut session = Session::open(&self.server, &deadline).await?;
        let outcome = session.mail(letter, &deadline).await;
        self.done_with(session, outcome)
    }

    async fn turn(&self, deadline: &Deadline) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
        let turn = deadline
            .bound(
                Step::Turn,
                self.limits.deadlines.whole,
                self.turns.acquire(),
            )
            .await?;
        turn.map_err(|_never_closed| Failure {
            step: Step::Turn,
            cause: Cause::Protocol,
        })
    }

    /// The idle connection that was used last, if it is still good. Whoever holds a turn and
    /// finds none may open one: idle and busy ones together are never more than the turns.
    async fn take_idle(&self) -> Option<Session> {
        while let Some(session) = self.with_idle(Vec::pop) {
            let is_good =
                session.mails < self.limits.mails && session.since.elapsed() < self.limits.idle;
            if is_good {
                return Some(session);
            }
            session.quit().await;
        }
        None
    }

    /// Keeps the connection if the server ended the mail in an orderly way.
    fn done_with(&self, mut session: Session, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let is_orderly = match &outcome {
            Ok(()) => true,
            Err(failure) => {
                matches!(&failure.cause, Cause::Reply(reply) if !reply.is_farewell())
                    || failure.cause == Cause::NoSmtputf8
            }
        };
        if is_orderly {
            session.unclean = outcome.is_err();
            session.since = Instant::now();
            self.with_idle(|idle| idle.push(session));
            self.put_back.notify_one();
        }
        outcome
    }

    fn with_idle<T>(&self, work: impl FnOnce(&mut Vec<Session>) -> T) -> T {
        work(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Transport for Smtp {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        let data = mime::encode(message).ok_or(MailError::Unavailable(Failure {
            step: Step::Compose,
            cause: Cause::Protocol,
        }))?;
        let letter = Letter {
            from: mime::wire_address(&message.from.address),
            to: mime::wire_address(&message.to),
            data: &data,
            is_internationalized: message.to.is_internationalized(),
        };
        self.deliver(&letter, message.until)
            .await
            .map_err(Failure::verdict)
    }
}

/// Whether an idle connection turned out to be closed before it was told anything of a mail but
/// its sender.
fn is_stale(failure: &Failure) -> bool {
    failure.step == Step::Reset
        || failure.step == Step::Sender
            && match &failure.cause {
                Cause::Reply(reply) => reply.is_farewell(),
                _ => true,
            }
}
