//! The composition root: the only place that constructs. Read from top to bottom it says what a
//! process is made of.

mod keys;
mod parts;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{self, Api, dev::Development, ops::Operations, server};
use crate::config::{Config, Role, Settings};
use crate::mailer::{MessageId, OtpMail};
use crate::otp::address::{ChallengeId, EmailAddress};
use crate::otp::clock::SystemClock;
use crate::otp::code::{Code, Entropy, Nonce, OsEntropy};
use crate::otp::keys::KeyRing;
use crate::processor::Processor;
use crate::queue::Handler;
use crate::shutdown::Shutdown;
use crate::store::OtpStore;
use crate::telemetry::Telemetry;
use parts::{Backend, Post, Way};

/// How long a stop may take in all; what still runs then is left to the next start.
const STOP_DEADLINE: Duration = Duration::from_secs(23);
/// How often the keys are noted again, since the note in the store fades with the data.
const ATTEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Serves until SIGTERM or Ctrl-C.
pub async fn serve(config: Config, role: Role) -> anyhow::Result<()> {
    let settings = &config.settings;
    let shutdown = Shutdown::default();
    let telemetry = Arc::new(Telemetry::default());
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let keys = Arc::new(keys::ring(settings, &*entropy)?);
    let backend = parts::backend(settings, &entropy, &telemetry).await?;
    backend.store.attest(&keys.marks()).await?;
    let post = if role.mails() {
        Some(parts::post(settings)?)
    } else {
        None
    };

    if role.answers() {
        let api = Api {
            store: backend.store.clone(),
            queue: backend.queue.clone(),
            keys: keys.clone(),
            policy: parts::policy(settings),
            resend_in: settings.limits.address.cooldown,
            entropy: entropy.clone(),
            telemetry: telemetry.clone(),
            public_url: settings.http.public_url.clone(),
            development: post.as_ref().and_then(development),
        };
        listen(
            settings.http.listen,
            "http.listen",
            api::router(api),
            &telemetry,
            &shutdown,
        )
        .await?;
    }
    // The last listener to open, since it tells that the process is ready.
    let operations = Operations {
        store: backend.store.clone(),
        queue: backend.queue.clone(),
        telemetry: telemetry.clone(),
        entropy: entropy.clone(),
        draining: shutdown.token(),
    };
    listen(
        settings.ops.listen,
        "ops.listen",
        api::ops::router(operations),
        &telemetry,
        &shutdown,
    )
    .await?;
    shutdown.spawn(keep_attested(
        backend.store.clone(),
        keys.clone(),
        telemetry.clone(),
        shutdown.clone(),
    ));
    if let Some(post) = &post {
        let processor = Processor {
            store: backend.store.clone(),
            mailer: post.mailer.clone(),
            keys,
            policy: parts::policy(settings),
            entropy,
            clock: Arc::new(SystemClock),
            telemetry: telemetry.clone(),
        };
        work(&backend, Arc::new(processor), &telemetry, &shutdown);
        if let Way::Smtp(smtp) = &post.way {
            let (smtp, stop) = (smtp.clone(), shutdown.token());
            shutdown.spawn(async move { smtp.keep_tidy(&stop).await });
        }
    }
    greet(settings, role, &backend);
    run_until_stopped(&shutdown).await
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
    };
    let post = parts::post(settings)?;
    post.mailer
        .send(&mail)
        .await
        .context("the mail server did not take the mail")
}

/// The OpenAPI document of the API.
pub fn openapi() -> String {
    api::openapi::document()
}

/// A fresh pair of keys in the form of the settings file.
pub fn keygen() -> anyhow::Result<String> {
    Ok(keys::fresh(&OsEntropy)?.to_string())
}

/// Succeeds when the process with these settings is ready.
pub async fn healthcheck(settings: &Settings) -> anyhow::Result<()> {
    api::health::ask_ready(settings.ops.listen)
        .await
        .context("not ready")
}

async fn listen(
    address: SocketAddr,
    setting: &str,
    router: api::Router,
    telemetry: &Arc<Telemetry>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address}; change `{setting}`"))?;
    let limits = server::Limits::default();
    shutdown.spawn(server::serve(
        listener,
        router,
        limits,
        telemetry.clone(),
        shutdown.token(),
    ));
    Ok(())
}

fn development(post: &Post) -> Option<Development> {
    let Way::Mailbox(mailbox) = &post.way else {
        return None;
    };
    let mailbox = mailbox.clone();
    Some(Development {
        messages: Arc::new(move || json!(mailbox.messages())),
    })
}

/// A worker that can't go on brings the process down, so that whoever supervises it notices.
fn work(
    backend: &Backend,
    processor: Arc<Processor>,
    telemetry: &Arc<Telemetry>,
    shutdown: &Shutdown,
) {
    let queue = backend.queue.clone();
    let handler: Handler = Arc::new(move |job| {
        let processor = processor.clone();
        Box::pin(async move { processor.process(job).await })
    });
    let (telemetry, stop) = (telemetry.clone(), shutdown.clone());
    shutdown.spawn(async move {
        if let Err(error) = queue.work(handler, stop.token()).await {
            telemetry.part_failed("worker", &error);
            stop.fail();
        }
    });
}

async fn keep_attested(
    store: Arc<dyn OtpStore>,
    keys: Arc<KeyRing>,
    telemetry: Arc<Telemetry>,
    shutdown: Shutdown,
) {
    let stop = shutdown.token();
    while tokio::time::timeout(ATTEST_INTERVAL, stop.cancelled())
        .await
        .is_err()
    {
        if let Err(error) = store.attest(&keys.marks()).await {
            telemetry.part_failed("store", &error);
        }
    }
}

/// What a person who started the process wants to know. It goes to standard error, so that
/// standard output holds nothing but the log. A closed pipe is the reader's business.
fn greet(settings: &Settings, role: Role, backend: &Backend) {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = vec![format!(
        "otpost {version}, role {}, on {}",
        role.as_str(),
        backend.described
    )];
    if role.answers() {
        lines.push(format!("  API         http://{}", settings.http.listen));
    }
    lines.push(format!(
        "  operations  http://{}/readyz, /metrics",
        settings.ops.listen
    ));
    if settings.development {
        lines.push(format!(
            "  mailbox     http://{}/dev/mailbox",
            settings.http.listen
        ));
        lines.push(
            "  Development mode: mails stay in memory. `mail.smtp.url` and `mail.from` end it."
                .to_owned(),
        );
    } else if role.answers() {
        lines.push("  Whoever reaches the API may use it; keep it away from strangers.".to_owned());
    }
    if let (Some(url), true) = (&settings.mail.smtp.url, role.mails()) {
        lines.push(format!("  mail server {url}"));
    }
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

async fn run_until_stopped(shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = shutdown.token();
    // Nothing is lost by losing: each branch only says that the end has come.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => {}
    }
    shutdown.begin();
    if !shutdown.finish(STOP_DEADLINE).await {
        bail!("some work did not end in time; it will be done again after the next start");
    }
    if shutdown.has_failed() {
        bail!("the worker could not go on");
    }
    Ok(())
}
