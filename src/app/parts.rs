//! The parts that settings choose between: store and queue on SQLite or Redis, mails by SMTP or
//! into the mailbox.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use secrecy::ExposeSecret;

use crate::api::client::Gate;
use crate::api::intake::{Intake, OneStep, TwoSteps};
use crate::config::{self, Settings, SmtpSecurity, SmtpUrl, StoreUrl};
use crate::mailer::mailbox::Mailbox;
use crate::mailer::template::Templates;
use crate::mailer::transport::Transport;
use crate::mailer::transport::smtp::{self, Smtp};
use crate::mailer::{Letterhead, Mailer};
use crate::otp::clock::SystemClock;
use crate::otp::code::Entropy;
use crate::otp::keys::KeyRing;
use crate::otp::policy::{ClientLimits, Policy};
use crate::queue::bullmq::BullmqQueue;
use crate::queue::sqlite::SqliteQueue;
use crate::queue::{JobQueue, QueueLimits, Sources};
use crate::redis_link::{self, Encryption, RedisLink, RedisNode, RedisServers, RedisTarget};
use crate::sqlite::Sqlite;
use crate::store::redis::RedisStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Durability, DurabilityLevel, OtpStore, Pace, PaceName};
use crate::telemetry::Telemetry;

/// How long a claimed job belongs to its worker: longer than any `queue.attempt_deadline`, short
/// enough that a killed worker's job runs again within 20 s.
const LEASE: Duration = Duration::from_secs(12);
/// Failed jobs that are kept, whatever their age.
const KEEP_FAILED_COUNT: u32 = 10_000;

/// Store and queue, which are always chosen together.
pub struct Backend {
    /// Keeps what outlives a request.
    pub store: Arc<dyn OtpStore>,
    /// Keeps and runs the jobs.
    pub queue: Arc<dyn JobQueue>,
    /// Takes requests on behalf of both.
    pub intake: Arc<dyn Intake>,
}

/// The way of the mails.
pub struct Post {
    /// Writes and sends them.
    pub mailer: Arc<Mailer>,
    /// Where they go.
    pub way: Way,
}

/// Where mails go.
pub enum Way {
    /// To a mail server.
    Smtp(Arc<Smtp>),
    /// Into memory, in development mode.
    Mailbox(Arc<Mailbox>),
}

/// Whom the API answers, and whom it believes.
pub fn gate(settings: &Settings) -> Gate {
    let http = &settings.http;
    Gate {
        api_keys: http.api_keys.clone(),
        trusted_proxies: http.trusted_proxies.clone(),
        forwarded_header: http.forwarded_header,
    }
}

/// How a code is made, how long it lives, what ends it.
pub fn policy(settings: &Settings) -> Policy {
    let (otp, limits) = (&settings.otp, &settings.limits);
    Policy {
        digits: otp.digits,
        lifetime: otp.lifetime,
        attempts: otp.attempts,
        resend: otp.resend,
        limits: limits.enabled.then_some(limits.address),
        client_limits: limits.client.enabled.then_some(ClientLimits {
            generate_per_10m: limits.client.generate_per_10m,
            generate_per_hour: limits.client.generate_per_hour,
            distinct_addresses_per_hour: limits.client.distinct_addresses_per_hour,
            verify_failures_per_hour: limits.client.verify_failures_per_hour,
        }),
        step_up: otp.step_up,
    }
}

/// How many mails a minute go to one domain, if that is bounded.
pub fn domain_per_minute(settings: &Settings) -> Option<u32> {
    let limits = &settings.limits;
    limits.enabled.then_some(limits.domain.per_minute)
}

fn global_pace(settings: &Settings, keys: &KeyRing) -> Option<Pace> {
    let per_minute = settings.limits.global.per_minute;
    (settings.limits.enabled && per_minute > 0).then(|| Pace {
        name: PaceName::service(keys),
        per_minute,
    })
}

/// Store and queue as `store.url` says.
pub async fn backend(
    settings: &Settings,
    keys: &KeyRing,
    entropy: &Arc<dyn Entropy>,
    telemetry: &Arc<Telemetry>,
) -> anyhow::Result<Backend> {
    let policy = policy(settings);
    let limits = queue_limits(settings);
    let clock = Arc::new(SystemClock);
    let sources = Sources {
        clock: clock.clone(),
        entropy: entropy.clone(),
        telemetry: telemetry.clone(),
    };
    let Some(target) = redis_target(settings) else {
        let StoreUrl::Sqlite(path) = &settings.store.url else {
            unreachable!("no Redis")
        };
        let sqlite = Sqlite::open(path)?;
        let queue = Arc::new(SqliteQueue::open(sqlite.clone(), limits, sources).await?);
        let embedded = SqliteStore::new(sqlite, policy, clock);
        let store: Arc<dyn OtpStore> = Arc::new(embedded.clone());
        let intake = OneStep {
            store: embedded,
            queue: queue.clone(),
            two_steps: TwoSteps {
                store: store.clone(),
                queue: queue.clone(),
                global: global_pace(settings, keys),
                telemetry: telemetry.clone(),
            },
        };
        return Ok(Backend {
            store,
            queue,
            intake: Arc::new(intake),
        });
    };
    let link = RedisLink::connect(&target, redis_link::DEADLINE).await?;
    link.check().await?;
    let name = &settings.queue.name;
    let prefix = &settings.queue.prefix;
    let queue = BullmqQueue::connect(target, link.clone(), name, prefix, limits, sources).await?;
    let queue: Arc<dyn JobQueue> = Arc::new(queue);
    let store: Arc<dyn OtpStore> = Arc::new(RedisStore::new(link, policy));
    let intake = TwoSteps {
        store: store.clone(),
        queue: queue.clone(),
        global: global_pace(settings, keys),
        telemetry: telemetry.clone(),
    };
    Ok(Backend {
        store,
        queue,
        intake: Arc::new(intake),
    })
}

/// What the store promises about acknowledged writes, which must be what `store.durability` asks.
pub async fn durability(
    settings: &Settings,
    backend: &Backend,
    telemetry: &Telemetry,
) -> anyhow::Result<DurabilityLevel> {
    let Durability { level, node } = backend.store.durability().await?;
    telemetry.durability_read(level.name());
    if settings.store.durability == config::Durability::Strict && level != DurabilityLevel::Always {
        let found = match level {
            DurabilityLevel::Unknown => {
                "does not tell whether it syncs every write; let its user run `CONFIG GET`, and set"
            }
            DurabilityLevel::Memory => "has `appendonly no`; set",
            DurabilityLevel::Kernel => "has `appendfsync no`; set",
            _ => "has `appendfsync everysec`; set",
        };
        bail!(
            "`store.durability` is \"strict\", but Redis at {node} {found} `appendonly yes` and `appendfsync always` there (`CONFIG SET`, and in redis.conf)"
        );
    }
    Ok(level)
}

fn queue_limits(settings: &Settings) -> QueueLimits {
    let queue = &settings.queue;
    QueueLimits {
        concurrency: queue.concurrency,
        attempt_deadline: queue.attempt_deadline,
        lease: LEASE,
        max_waiting: queue.max_waiting,
        keep_completed: queue.keep_completed,
        keep_failed: queue.keep_failed,
        keep_failed_count: KEEP_FAILED_COUNT,
    }
}

fn redis_target(settings: &Settings) -> Option<RedisTarget> {
    let node = |node: &crate::config::Node| RedisNode {
        host: node.host.clone(),
        port: node.port,
    };
    let (servers, username, password) = match &settings.store.url {
        StoreUrl::Sqlite(_) => return None,
        StoreUrl::Redis {
            node: server,
            database,
            username,
            password,
            ..
        } => {
            let servers = RedisServers::Single {
                node: node(server),
                database: *database,
            };
            (servers, username, password)
        }
        StoreUrl::RedisCluster {
            nodes,
            username,
            password,
            ..
        } => (
            RedisServers::Cluster(nodes.iter().map(node).collect()),
            username,
            password,
        ),
    };
    let encryption = match &settings.store.ca_file {
        Some(path) => Encryption::Authority(path.clone()),
        None if settings.store.url.uses_tls() => Encryption::Public,
        None => Encryption::None,
    };
    Some(RedisTarget {
        servers,
        user: username
            .as_ref()
            .map(|user| user.expose_secret().to_owned()),
        password: password.clone(),
        encryption,
    })
}

/// The mailer as `mail.transport` says.
pub fn post(settings: &Settings) -> anyhow::Result<Post> {
    let mail = &settings.mail;
    let templates = Templates::load(mail.templates.as_deref()).context("`mail.templates`")?;
    let clock = Arc::new(SystemClock);
    let way = match &mail.smtp.url {
        Some(url) if !settings.development => Way::Smtp(Arc::new(smtp(settings, url)?)),
        _ => Way::Mailbox(Arc::new(Mailbox::new(clock.clone()))),
    };
    let transport: Arc<dyn Transport> = match &way {
        Way::Smtp(smtp) => smtp.clone(),
        Way::Mailbox(mailbox) => mailbox.clone(),
    };
    let letterhead = Letterhead {
        sender: mail.from.clone(),
        product: mail.product.clone(),
        code_in_subject: mail.code_in_subject,
    };
    let mailer = Arc::new(Mailer::new(templates, letterhead, transport, clock));
    Ok(Post { mailer, way })
}

fn smtp(settings: &Settings, url: &SmtpUrl) -> anyhow::Result<Smtp> {
    let mail = &settings.mail;
    let security = match url.security {
        SmtpSecurity::StartTls => smtp::Security::StartTls,
        SmtpSecurity::Implicit => smtp::Security::Implicit,
        SmtpSecurity::PlainLoopback => smtp::Security::PlainLoopback,
    };
    let credentials = match (&url.username, &url.password) {
        (Some(user), Some(password)) => Some(smtp::Credentials {
            user: user.expose_secret().to_owned(),
            password: password.clone(),
        }),
        _ => None,
    };
    let usual = smtp::Settings::new(security, &url.host, url.port, mail.from.domain());
    Ok(Smtp::new(smtp::Settings {
        credentials,
        connections: mail.smtp.connections,
        ca_file: mail.smtp.ca_file.clone(),
        ..usual
    })?)
}
