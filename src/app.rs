//! The composition root: the only place that constructs. Read from top to bottom it says what a
//! process is made of.

mod breaker;
mod keys;
mod limits;
mod listeners;
mod parts;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::api::{self, Api, dev::Development, openapi::Callers, ops::Operations};
use crate::config::{Durability, Role, Settings};
use crate::mailer::{MessageId, OtpMail};
use crate::otp::address::{ChallengeId, EmailAddress};
use crate::otp::api_key::{self, ApiKeyHash};
use crate::otp::breaker::Breaker;
use crate::otp::clock::SystemClock;
use crate::otp::code::{Code, Entropy, Nonce, OsEntropy};
use crate::otp::keys::KeyRing;
use crate::processor::Processor;
use crate::queue::Handler;
use crate::shutdown::Shutdown;
use crate::store::DurabilityLevel;
use crate::telemetry::Telemetry;
use breaker::Watch;
use listeners::Listeners;
use parts::{Backend, Post, Way};

pub use breaker::LOOK_DEADLINE;

/// How long a stop waits for what runs; what still runs then is left to the next start. A last look of
/// the watch comes after it.
pub const STOP_DEADLINE: Duration = Duration::from_secs(21);
/// What an attempt may need after its mail: one call to the store, and a little.
const AFTERMATH: Duration = Duration::from_millis(2_500);
/// How often the keys are noted again, since the note in the store fades with the data.
const ATTEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Serves until SIGTERM or Ctrl-C.
pub async fn serve(settings: Settings, role: Role) -> anyhow::Result<()> {
    let mut stop_signals = StopSignals::listen()?;
    // Nothing is lost by losing: a process that has not started has promised nothing.
    let process = tokio::select! {
        process = Process::start(settings, role) => process?,
        () = stop_signals.received() => return Ok(()),
    };
    process.run_until(stop_signals).await
}

/// Finds what a start with these settings would refuse without connecting to anything.
pub fn check(settings: &Settings, role: Role) -> anyhow::Result<()> {
    if role.mails() {
        parts::post(settings)?;
    }
    Ok(())
}

/// The parts of a serving process.
struct Process {
    settings: Settings,
    role: Role,
    keys: Arc<KeyRing>,
    backend: Backend,
    /// What the store promised at the start.
    durability: DurabilityLevel,
    /// Only where mails are sent.
    post: Option<Post>,
    entropy: Arc<dyn Entropy>,
    breaker: Arc<Breaker>,
    telemetry: Arc<Telemetry>,
    shutdown: Shutdown,
}

impl Process {
    async fn start(settings: Settings, role: Role) -> anyhow::Result<Self> {
        let mut process = Self::assemble(settings, role).await?;
        let listeners = process.listeners();
        if role.answers() {
            let router = api::router(process.api());
            process.settings.http.listen = listeners.api(&process.settings.http, router)?;
        }
        // The last listener to open, since it tells that the process is ready.
        let router = api::ops::router(process.operations());
        process.settings.ops.listen = listeners.ops(process.settings.ops.listen, router)?;
        process.keep_attested();
        if let Some(watch) = process.watch() {
            let stop = process.shutdown.token();
            process
                .shutdown
                .spawn(async move { watch.keep(&stop).await });
        }
        if let Some(post) = &process.post {
            process.work(post);
        }
        process.greet();
        Ok(process)
    }

    async fn assemble(settings: Settings, role: Role) -> anyhow::Result<Self> {
        let post = if role.mails() {
            Some(parts::post(&settings)?)
        } else {
            None
        };
        let telemetry = Arc::new(Telemetry::default());
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let keys = Arc::new(keys::ring(&settings, &*entropy)?);
        let backend = parts::backend(&settings, &keys, &entropy, &telemetry).await?;
        backend.store.attest(&keys.marks()).await?;
        let durability = parts::durability(&settings, &backend, &telemetry).await?;
        let shutdown = Shutdown::default();
        Ok(Self {
            settings,
            role,
            keys,
            backend,
            durability,
            post,
            entropy,
            breaker: Arc::default(),
            telemetry,
            shutdown,
        })
    }

    fn listeners(&self) -> Listeners {
        let mail_connections = match self.post.as_ref().map(|post| &post.way) {
            Some(Way::Smtp(_)) => self.settings.mail.smtp.connections,
            _ => 0,
        };
        Listeners::new(&self.telemetry, &self.shutdown, mail_connections)
    }

    fn api(&self) -> Api {
        Api {
            store: self.backend.store.clone(),
            queue: self.backend.queue.clone(),
            intake: self.backend.intake.clone(),
            keys: self.keys.clone(),
            policy: parts::policy(&self.settings),
            smtputf8: self.settings.mail.smtputf8,
            resend_in: self.settings.limits.address.cooldown,
            entropy: self.entropy.clone(),
            telemetry: self.telemetry.clone(),
            gate: parts::gate(&self.settings),
            breaker: self.breaker.clone(),
            tasks: self.shutdown.tracker(),
            cors_origins: self.settings.http.cors_origins.clone(),
            public_url: self.settings.http.public_url.clone(),
            development: self.development(),
        }
    }

    fn development(&self) -> Option<Development> {
        let Way::Mailbox(mailbox) = &self.post.as_ref()?.way else {
            return None;
        };
        let mailbox = mailbox.clone();
        Some(Development {
            messages: Arc::new(move || json!(mailbox.messages())),
        })
    }

    fn operations(&self) -> Operations {
        Operations {
            store: self.backend.store.clone(),
            queue: self.backend.queue.clone(),
            telemetry: self.telemetry.clone(),
            entropy: self.entropy.clone(),
            is_strict: self.settings.store.durability == Durability::Strict,
            draining: self.shutdown.token(),
        }
    }

    fn processor(&self, post: &Post) -> Processor {
        Processor {
            store: self.backend.store.clone(),
            mailer: post.mailer.clone(),
            keys: self.keys.clone(),
            policy: parts::policy(&self.settings),
            domain_per_minute: parts::domain_per_minute(&self.settings),
            breaker: self.breaker.clone(),
            entropy: self.entropy.clone(),
            clock: Arc::new(SystemClock),
            telemetry: self.telemetry.clone(),
            mail_time: self
                .settings
                .queue
                .attempt_deadline
                .saturating_sub(AFTERMATH),
        }
    }

    /// A worker that can't go on brings the process down, so that whoever supervises it notices.
    fn work(&self, post: &Post) {
        let processor = Arc::new(self.processor(post));
        let handler: Handler = Arc::new(move |job| {
            let processor = processor.clone();
            Box::pin(async move { processor.process(job).await })
        });
        let queue = self.backend.queue.clone();
        let (telemetry, shutdown) = (self.telemetry.clone(), self.shutdown.clone());
        self.shutdown.spawn(async move {
            if let Err(error) = queue.work(handler, shutdown.token()).await {
                telemetry.part_failed("worker", &error);
                shutdown.fail();
            }
        });
        if let Way::Smtp(smtp) = &post.way {
            let (smtp, stop) = (smtp.clone(), self.shutdown.token());
            self.shutdown
                .spawn(async move { smtp.keep_tidy(&stop).await });
        }
    }

    fn keep_attested(&self) {
        let (store, marks) = (self.backend.store.clone(), self.keys.marks());
        let (telemetry, stop) = (self.telemetry.clone(), self.shutdown.token());
        self.shutdown.spawn(async move {
            while tokio::time::timeout(ATTEST_INTERVAL, stop.cancelled())
                .await
                .is_err()
            {
                if let Err(error) = store.attest(&marks).await {
                    telemetry.part_failed("store", &error);
                }
            }
        });
    }

    /// Without limits nobody heeds wrong codes.
    fn watch(&self) -> Option<Watch> {
        self.settings.limits.enabled.then(|| Watch {
            store: self.backend.store.clone(),
            breaker: self.breaker.clone(),
            telemetry: self.telemetry.clone(),
        })
    }

    /// What a person who started the process wants to know. It goes to standard error, so that
    /// standard output holds nothing but the log. A closed pipe is the reader's business. The bound
    /// is logged as well, so that whoever reads the log of a former start knows what it was.
    fn greet(&self) {
        let settings = &self.settings;
        let guess_bound = limits::bound(&parts::policy(settings));
        self.telemetry.started(&guess_bound);
        let (version, role) = (env!("CARGO_PKG_VERSION"), self.role.as_str());
        let mut lines = vec![format!(
            "otpost {version}, role {role}, on {}",
            settings.store.url
        )];
        if self.role.answers() {
            lines.push(format!("  API         http://{}", settings.http.listen));
        }
        if self.durability != DurabilityLevel::Always {
            let level = self.durability.name();
            lines.push(format!(
                "  durability  {level}: answered requests can be lost with Redis"
            ));
        }
        lines.push(format!(
            "  operations  http://{}/readyz, /metrics",
            settings.ops.listen
        ));
        if let (Some(url), Some(_)) = (&settings.mail.smtp.url, &self.post) {
            lines.push(format!("  mail server {url}"));
        }
        if settings.development {
            lines.push(format!(
                "  mailbox     http://{}/dev/mailbox",
                settings.http.listen
            ));
            lines.push(
                "  Development mode: mails stay in memory, to be read at the mailbox.".into(),
            );
            lines.push("  `mail.smtp.url` and `mail.from` end it.".into());
        }
        lines.push(format!("  guess bound {guess_bound}"));
        let is_open = settings.http.api_keys.is_empty() && !settings.development;
        if self.role.answers() && is_open {
            lines.push("  No API key is configured: whoever reaches the API may call it.".into());
        }
        let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
    }

    async fn run_until(&self, mut stop_signals: StopSignals) -> anyhow::Result<()> {
        let stop = self.shutdown.token();
        // Nothing is lost by losing: each branch only says that the end has come.
        tokio::select! {
            () = stop_signals.received() => {}
            () = stop.cancelled() => {}
        }
        self.shutdown.begin();
        if !self.shutdown.finish(STOP_DEADLINE).await {
            bail!("some work did not end in time; it will be done again after the next start");
        }
        if let Some(watch) = self.watch() {
            watch.look().await;
        }
        if self.shutdown.has_failed() {
            bail!("the worker could not go on");
        }
        Ok(())
    }
}

/// SIGTERM and Ctrl-C. They are heard from here on, so that a start can be stopped, too.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        // Nothing is lost by losing: each branch only says that the end has come.
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Sends a sample mail whose code belongs to nothing.
pub async fn mail_test(settings: &Settings, address: &EmailAddress) -> anyhow::Result<()> {
    if settings.development {
        bail!("in development mode mails go nowhere; set `mail.smtp.url` and `mail.from` first");
    }
    let mut throw_away = [0; 32];
    OsEntropy.fill(&mut throw_away)?;
    let keys = KeyRing::new(&throw_away, &[], &throw_away);
    let nonce = Nonce::draw(&OsEntropy)?;
    let challenge = ChallengeId::of(&keys, address, "");
    let mail = OtpMail {
        to: address.clone(),
        code: Code::derive(keys.current(), nonce, challenge, settings.otp.digits),
        valid_for: settings.otp.lifetime,
        locale: None,
        message_id: MessageId::new(&keys, "sample", nonce),
        until: Instant::now() + settings.queue.attempt_deadline,
    };
    let post = parts::post(settings)?;
    post.mailer
        .send(&mail)
        .await
        .context("the mail server did not take the mail")
}

/// The OpenAPI document of the API, as it is with the defaults.
pub fn openapi() -> String {
    api::openapi::document(api::openapi::USUAL_DIGITS, Callers::Everybody)
}

/// A fresh pair of keys in the form of the settings file.
pub fn keygen() -> anyhow::Result<String> {
    Ok(keys::fresh(&OsEntropy)?.to_string())
}

/// The name of an address in the log.
pub fn pseudonym(settings: &Settings, address: &EmailAddress) -> anyhow::Result<String> {
    keys::pseudonym(settings, address)
}

/// The limits in effect and what they bound, for people.
pub fn limits(settings: &Settings) -> String {
    limits::describe(settings)
}

/// A fresh API key and, below it, the line of `[http]` in the settings file that lists its hash.
pub fn apikey() -> anyhow::Result<String> {
    let key = api_key::draw(&OsEntropy)?;
    let hash = ApiKeyHash::of(key.as_bytes());
    Ok(format!("{}\napi_keys = [\"{hash}\"]\n", *key))
}

/// Succeeds when the process whose operations listener is there is ready.
pub async fn healthcheck(ops: SocketAddr) -> anyhow::Result<()> {
    api::health::ask_ready(ops).await.context("not ready")
}
