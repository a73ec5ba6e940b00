//! The settings as the rest of the program sees them: typed, checked, named as in `default.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::otp::api_key::ApiKeyHash;
use crate::otp::network::Network;
use crate::otp::policy::{AddressLimits, Resend, StepUp};

use super::secret_key::SecretKey;
use super::sender::Sender;
use super::smtp_url::SmtpUrl;
use super::store_url::StoreUrl;

/// All settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The API.
    pub http: HttpSettings,
    /// The operations listener.
    pub ops: OpsSettings,
    /// Where everything is kept.
    pub store: StoreSettings,
    /// The secret keys.
    pub keys: KeysSettings,
    /// The code.
    pub otp: OtpSettings,
    /// What is bounded, and by how much.
    pub limits: LimitsSettings,
    /// The queue and its workers.
    pub queue: QueueSettings,
    /// The mail.
    pub mail: MailSettings,
    /// Log lines.
    pub log: LogSettings,
    /// Whether this is development mode: the mailbox is the transport. Decided, not set.
    pub development: bool,
}

/// `[http]`: the API.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// The address under which people reach the API, without a slash at its end; or empty.
    pub public_url: String,
    /// Addresses and networks whose forwarding header is believed.
    pub trusted_proxies: Vec<Network>,
    /// The header that they write.
    pub forwarded_header: ForwardedHeader,
    /// Origins whose pages may call the API.
    pub cors_origins: Vec<String>,
    /// Hashes of the API keys; none means that the API is open.
    pub api_keys: Vec<ApiKeyHash>,
}

/// The header in which a proxy names the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` of RFC 7239.
    Forwarded,
}

/// `[ops]`: health and metrics.
#[derive(Clone, Debug)]
pub struct OpsSettings {
    /// Where the operations listener listens.
    pub listen: SocketAddr,
}

/// `[store]`: where codes, limits and the queue live.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Which backend and where.
    pub url: StoreUrl,
    /// Authority of the server's certificate, in place of the public ones that are compiled in.
    pub ca_file: Option<PathBuf>,
    /// What Redis must promise about acknowledged writes.
    pub durability: Durability,
}

/// What Redis must promise about acknowledged writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Whatever it is set to; it is reported.
    Any,
    /// An fsync for every write, or no start.
    Strict,
}

/// `[keys]`: the secret keys. On Redis both are there; on the embedded store both or none.
#[derive(Clone, Debug)]
pub struct KeysSettings {
    /// Makes and checks codes.
    pub master: Option<SecretKey>,
    /// Keys besides `master` whose codes still count.
    pub previous: Vec<SecretKey>,
    /// Names addresses in the store and in logs.
    pub address: Option<SecretKey>,
}

/// `[otp]`: the code.
#[derive(Clone, Debug)]
pub struct OtpSettings {
    /// Digits of a code, 6 to 8.
    pub digits: u8,
    /// How long a code can be used.
    pub lifetime: Duration,
    /// Wrong attempts after which live codes are dead.
    pub attempts: u32,
    /// What a second request gets while a code is live.
    pub resend: Resend,
    /// What happens when an address's budget of failures is spent.
    pub step_up: StepUp,
}

/// `[limits]`: what is bounded, and by how much.
#[derive(Clone, Debug)]
pub struct LimitsSettings {
    /// Whether any limit holds.
    pub enabled: bool,
    /// Limits of one address.
    pub address: AddressLimits,
    /// Limits of one client network.
    pub client: ClientSettings,
    /// Limits of one recipient domain.
    pub domain: DomainLimits,
    /// Limits of the whole service.
    pub global: GlobalLimits,
}

/// `[limits.client]`: limits of one client network.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Whether these limits hold.
    pub enabled: bool,
    /// Requests for a code in ten minutes.
    pub generate_per_10m: u32,
    /// Requests for a code an hour.
    pub generate_per_hour: u32,
    /// Different addresses an hour.
    pub distinct_addresses_per_hour: u32,
    /// Wrong codes an hour.
    pub verify_failures_per_hour: u32,
}

/// `[limits.domain]`: limits of one recipient domain.
#[derive(Clone, Debug)]
pub struct DomainLimits {
    /// Mails a minute.
    pub per_minute: u32,
}

/// `[limits.global]`: limits of the whole service.
#[derive(Clone, Debug)]
pub struct GlobalLimits {
    /// Requests for a code accepted in a minute; 0 means no limit.
    pub per_minute: u32,
}

/// `[queue]`: the queue and its workers.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Name of the queue.
    pub name: String,
    /// What its keys begin with.
    pub prefix: String,
    /// Mails that one process works on at the same time.
    pub concurrency: usize,
    /// The time that one attempt at a mail may take.
    pub attempt_deadline: Duration,
    /// Waiting mails beyond which requests are refused.
    pub max_waiting: u64,
    /// How long finished jobs stay.
    pub keep_completed: Duration,
    /// How long failed jobs stay.
    pub keep_failed: Duration,
}

/// `[mail]`: the mail.
#[derive(Clone, Debug)]
pub struct MailSettings {
    /// The way out: the mailbox exactly in development mode.
    pub transport: Transport,
    /// The sender. Given, if this process mails outside development mode; else a local stand-in.
    pub from: Sender,
    /// The product's name in subject and text.
    pub product: String,
    /// Folder with templates that replace the built-in ones.
    pub templates: Option<PathBuf>,
    /// Whether the subject shows the code.
    pub code_in_subject: bool,
    /// Whether the API takes addresses whose local part goes beyond ASCII.
    pub smtputf8: bool,
    /// The mail server.
    pub smtp: SmtpSettings,
}

/// How mails leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// To the mail server of `[mail.smtp]`.
    Smtp,
    /// Into memory, to be looked at.
    Mailbox,
}

/// `[mail.smtp]`: the mail server.
#[derive(Clone, Debug)]
pub struct SmtpSettings {
    /// The server. Given, if this process mails outside development mode.
    pub url: Option<SmtpUrl>,
    /// Connections at the same time; never 0, that has become `queue.concurrency`.
    pub connections: usize,
    /// Authority of the server's certificate, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// `[log]`: log lines.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Their form.
    pub format: LogFormat,
    /// A filter that `tracing_subscriber` understands.
    pub level: String,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}
