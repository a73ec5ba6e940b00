//! An SMTP server of one test's own: takes mails for everybody on a free port, records what it is
//! told, and answers, stalls or hangs up at any step as the test wants.
//!
//! ```text
//! let server = SmtpServer::start().await;
//! server.once("RCPT", Act::Reply("550 5.1.1 no such user"));
//! ... mail goes to server.url() ...
//! assert_eq!(server.next_mail().await.code(), "123456");
//! ```

mod mail;
mod session;
mod stream;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use self::mail::Mail;

/// How long a test waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server does instead of its usual answer.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Answers with this line; two lines are divided by `\r\n`.
    Reply(&'static str),
    /// Answers with this line and hangs up.
    ReplyAndDrop(&'static str),
    /// Never answers.
    Stall,
    /// Hangs up without an answer.
    Drop,
}

/// How the server protects its dialogues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    Plain,
    /// Offers STARTTLS and takes no mail before it.
    StartTls,
    /// TLS from the first byte.
    Implicit,
}

/// What is wrong with the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing: `localhost`, signed by the authority in [`SmtpServer::ca_file`].
    Right,
    /// It is for another name.
    WrongName,
    /// It is signed by itself.
    SelfSigned,
}

/// What the server is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// How dialogues are protected.
    pub protection: Protection,
    /// The certificate it shows.
    pub certificate: Certificate,
    /// User and password, without which it takes no mail.
    pub login: Option<(&'static str, &'static str)>,
    /// The ways to log in that it offers.
    pub mechanisms: &'static str,
    /// Whether it offers SMTPUTF8, and 8BITMIME with it.
    pub smtputf8: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            protection: Protection::Plain,
            certificate: Certificate::Right,
            login: None,
            mechanisms: "PLAIN LOGIN",
            smtputf8: false,
        }
    }
}

/// The running server; it ends with the test.
pub struct SmtpServer {
    port: u16,
    protection: Protection,
    folder: TempDir,
    state: Arc<State>,
    mails: tokio::sync::Mutex<mpsc::UnboundedReceiver<Mail>>,
    _sessions: JoinSet<()>,
}

struct State {
    options: Options,
    rules: Mutex<Vec<Rule>>,
    record: watch::Sender<Record>,
    mails: mpsc::UnboundedSender<Mail>,
    evicted: watch::Sender<u64>,
    tls: Option<TlsAcceptor>,
}

struct Rule {
    step: &'static str,
    act: Act,
    is_once: bool,
}

/// What the server has seen.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Every line of every dialogue but the mails' contents.
    pub commands: Vec<String>,
    /// Connections so far.
    pub connections: usize,
    /// Connections that are open now.
    pub open: usize,
    /// The most that were ever open at once.
    pub most_open: usize,
}

impl SmtpServer {
    /// A server that accepts everything, in clear.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// A server with these options.
    pub async fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the certificates");
        let tls = (options.protection != Protection::Plain)
            .then(|| stream::acceptor(options.certificate, folder.path()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("the port").port();
        let protection = options.protection;
        let (mail_sender, mails) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            options,
            rules: Mutex::default(),
            record: watch::Sender::default(),
            mails: mail_sender,
            evicted: watch::Sender::default(),
            tls,
        });
        let mut sessions = JoinSet::new();
        sessions.spawn(session::accept(listener, Arc::clone(&state)));
        Self {
            port,
            protection,
            folder,
            state,
            mails: tokio::sync::Mutex::new(mails),
            _sessions: sessions,
        }
    }

    /// The server's address for settings.
    pub fn url(&self) -> String {
        match self.protection {
            Protection::Implicit => format!("smtps://localhost:{}", self.port),
            Protection::Plain | Protection::StartTls => format!("smtp://127.0.0.1:{}", self.port),
        }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority that signs the right certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// From now on does `act` at every `step`: `connect` (the greeting), a verb such as `RCPT`, or
    /// `.`, the final dot.
    pub fn always(&self, step: &'static str, act: Act) {
        self.rule(step, act, false);
    }

    /// Does `act` at the next `step`.
    pub fn once(&self, step: &'static str, act: Act) {
        self.rule(step, act, true);
    }

    /// Answers as usual again.
    pub fn relent(&self) {
        self.state.rules.lock().expect("the rules").clear();
    }

    /// The next mail, in the order in which their final dots came. One whose acknowledgement the
    /// server withheld counts, too: it has it.
    pub async fn next_mail(&self) -> Mail {
        let mut mails = self.mails.lock().await;
        tokio::time::timeout(PATIENCE, mails.recv())
            .await
            .expect("a mail comes")
            .expect("the server runs")
    }

    /// A mail that has come already.
    pub async fn mail_so_far(&self) -> Option<Mail> {
        self.mails.lock().await.try_recv().ok()
    }

    /// What the server has seen so far.
    pub fn record(&self) -> Record {
        self.state.record.borrow().clone()
    }

    /// How many commands began with this verb so far.
    pub fn count(&self, verb: &str) -> usize {
        let record = self.state.record.borrow();
        let is_verb = |command: &&String| command.starts_with(verb);
        record.commands.iter().filter(is_verb).count()
    }

    /// Waits until the record is as wanted.
    pub async fn until(&self, wanted: impl FnMut(&Record) -> bool) {
        let mut record = self.state.record.subscribe();
        tokio::time::timeout(PATIENCE, record.wait_for(wanted))
            .await
            .expect("the server sees it")
            .expect("the server runs");
    }

    /// Waits until a command begins with this verb.
    pub async fn hears(&self, verb: &str) {
        self.until(|record| {
            record
                .commands
                .iter()
                .any(|command| command.starts_with(verb))
        })
        .await;
    }

    /// Hangs up on everybody, and waits until that is done.
    pub async fn hang_up(&self) {
        self.state.evicted.send_modify(|times| *times += 1);
        self.until(|record| record.open == 0).await;
    }

    fn rule(&self, step: &'static str, act: Act, is_once: bool) {
        let mut rules = self.state.rules.lock().expect("the rules");
        rules.push(Rule { step, act, is_once });
    }
}
