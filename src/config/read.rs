//! From merged values to `Settings`, one by one. What is wrong becomes a finding and a stand-in value,
//! so that the rest is still looked at; with any finding the settings are thrown away.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::otp::api_key::ApiKeyHash;
use crate::otp::code::DIGITS;
use crate::otp::network::Network;
use crate::otp::policy::{AddressLimits, Resend, StepUp};

use super::development::STAND_IN_SENDER;
use super::duration::parse_duration;
use super::finding::Findings;
use super::layers::{Value, Values, defaults};
use super::secret_key::SecretKey;
use super::sender::Sender;
use super::settings::{
    ClientSettings, DomainLimits, Durability, ForwardedHeader, GlobalLimits, HttpSettings,
    KeysSettings, LimitsSettings, LogFormat, LogSettings, MailSettings, OpsSettings, OtpSettings,
    QueueSettings, Settings, SmtpSettings, StoreSettings, Transport,
};
use super::smtp_url::SmtpUrl;
use super::store_url::StoreUrl;
use super::url::{parse_host, split_url};

/// Understand every value.
pub fn read_settings(values: &Values, development: bool, findings: &mut Findings) -> Settings {
    let mut reader = Reader {
        values,
        defaults: defaults(),
        findings,
    };
    let queue = read_queue(&mut reader);
    Settings {
        http: read_http(&mut reader),
        ops: OpsSettings {
            listen: reader.parsed("ops.listen", parse_listen),
        },
        store: StoreSettings {
            url: reader.parsed("store.url", StoreUrl::parse),
            ca_file: reader.path("store.ca_file"),
            durability: reader.choice(
                "store.durability",
                "must be \"any\" or \"strict\"",
                &[("any", Durability::Any), ("strict", Durability::Strict)],
            ),
        },
        keys: KeysSettings {
            master: reader.optional("keys.master", SecretKey::parse),
            previous: reader.each("keys.previous", SecretKey::parse),
            address: reader.optional("keys.address", SecretKey::parse),
        },
        otp: read_otp(&mut reader),
        limits: read_limits(&mut reader),
        mail: read_mail(&mut reader, queue.concurrency),
        queue,
        log: LogSettings {
            format: reader.choice(
                "log.format",
                "must be \"auto\", \"text\" or \"json\"",
                &[
                    ("auto", LogFormat::Auto),
                    ("text", LogFormat::Text),
                    ("json", LogFormat::Json),
                ],
            ),
            level: reader.parsed("log.level", parse_level),
        },
        development,
    }
}

fn read_http(reader: &mut Reader<'_>) -> HttpSettings {
    HttpSettings {
        listen: reader.parsed("http.listen", parse_listen),
        public_url: reader
            .optional("http.public_url", parse_public_url)
            .unwrap_or_default(),
        trusted_proxies: reader.each("http.trusted_proxies", Network::parse),
        forwarded_header: reader.choice(
            "http.forwarded_header",
            "must be \"x-forwarded-for\" or \"forwarded\"",
            &[
                ("x-forwarded-for", ForwardedHeader::XForwardedFor),
                ("forwarded", ForwardedHeader::Forwarded),
            ],
        ),
        cors_origins: reader.each("http.cors_origins", parse_origin),
        api_keys: reader.each("http.api_keys", ApiKeyHash::parse),
    }
}

fn read_otp(reader: &mut Reader<'_>) -> OtpSettings {
    let lengths = i64::from(*DIGITS.start())..=i64::from(*DIGITS.end());
    OtpSettings {
        digits: reader.number("otp.digits", lengths),
        lifetime: reader.duration("otp.lifetime", "2m", "10m"),
        attempts: reader.number("otp.attempts", 1..=10),
        resend: reader.choice(
            "otp.resend",
            "must be \"keep\" or \"rotate\"",
            &[("keep", Resend::Keep), ("rotate", Resend::Rotate)],
        ),
        step_up: reader.choice(
            "otp.step_up",
            "must be \"digits8\" or \"block\"",
            &[("digits8", StepUp::Digits8), ("block", StepUp::Block)],
        ),
    }
}

fn read_limits(reader: &mut Reader<'_>) -> LimitsSettings {
    let mut count = |name: &str| reader.number(name, 1..=1_000_000);
    let client = ClientSettings {
        enabled: true,
        generate_per_10m: count("limits.client.generate_per_10m"),
        generate_per_hour: count("limits.client.generate_per_hour"),
        distinct_addresses_per_hour: count("limits.client.distinct_addresses_per_hour"),
        verify_failures_per_hour: count("limits.client.verify_failures_per_hour"),
    };
    let address = AddressLimits {
        cooldown: Duration::ZERO,
        per_hour: count("limits.address.per_hour"),
        per_day: count("limits.address.per_day"),
        failures_per_hour: count("limits.address.failures_per_hour"),
        failures_per_day: count("limits.address.failures_per_day"),
        failures_per_month: count("limits.address.failures_per_month"),
    };
    let domain = DomainLimits {
        per_minute: count("limits.domain.per_minute"),
    };
    LimitsSettings {
        enabled: reader.boolean("limits.enabled"),
        address: AddressLimits {
            cooldown: reader.duration("limits.address.cooldown", "0s", "1h"),
            ..address
        },
        client: ClientSettings {
            enabled: reader.boolean("limits.client.enabled"),
            ..client
        },
        domain,
        global: GlobalLimits {
            per_minute: reader.number("limits.global.per_minute", 0..=1_000_000),
        },
    }
}

fn read_queue(reader: &mut Reader<'_>) -> QueueSettings {
    QueueSettings {
        name: reader.parsed("queue.name", parse_key_part),
        prefix: reader.parsed("queue.prefix", parse_key_part),
        concurrency: reader.number("queue.concurrency", 1..=10_000),
        attempt_deadline: reader.duration("queue.attempt_deadline", "5s", "10s"),
        max_waiting: reader.number("queue.max_waiting", 1..=100_000_000),
        keep_completed: reader.duration("queue.keep_completed", "0s", "30d"),
        keep_failed: reader.duration("queue.keep_failed", "0s", "30d"),
    }
}

fn read_mail(reader: &mut Reader<'_>, concurrency: usize) -> MailSettings {
    let stand_in = || Sender::parse(STAND_IN_SENDER).expect("the stand-in is a sender");
    let connections = reader.number("mail.smtp.connections", 0..=10_000);
    MailSettings {
        transport: reader.choice(
            "mail.transport",
            "must be \"smtp\", \"mailbox\" or empty",
            &[
                ("", Transport::Smtp),
                ("smtp", Transport::Smtp),
                ("mailbox", Transport::Mailbox),
            ],
        ),
        from: reader
            .optional("mail.from", Sender::parse)
            .unwrap_or_else(stand_in),
        product: reader.parsed("mail.product", parse_product),
        templates: reader.path("mail.templates"),
        code_in_subject: reader.boolean("mail.code_in_subject"),
        smtputf8: reader.boolean("mail.smtputf8"),
        smtp: SmtpSettings {
            url: reader.optional("mail.smtp.url", SmtpUrl::parse),
            connections: if connections == 0 {
                concurrency
            } else {
                connections
            },
            ca_file: reader.path("mail.smtp.ca_file"),
        },
    }
}

struct Reader<'a> {
    values: &'a Values,
    defaults: Values,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    /// A text that is never empty; the default stands in for a bad one.
    fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, &'static str>) -> T {
        parse(self.values.text(name)).unwrap_or_else(|message| {
            self.refuse(name, message);
            parse(self.defaults.text(name)).expect("the defaults are valid")
        })
    }

    /// A text that is left empty when the setting is not used.
    fn optional<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        let text = self.values.text(name);
        if text.is_empty() {
            return None;
        }
        parse(text)
            .map_err(|message| self.refuse(name, message))
            .ok()
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.optional(name, |text| {
            if text.contains('\0') {
                Err("must be a path")
            } else {
                Ok(PathBuf::from(text))
            }
        })
    }

    fn each<T, E: Display>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, E>) -> Vec<T> {
        let Value::List(items) = &self.values.entry(name).value else {
            return Vec::new();
        };
        items
            .iter()
            .map(|item| parse(item))
            .collect::<Result<_, _>>()
            .unwrap_or_else(|message| {
                self.refuse(name, message.to_string());
                Vec::new()
            })
    }

    fn choice<T: Copy>(&mut self, name: &str, hint: &'static str, choices: &[(&str, T)]) -> T {
        self.parsed(name, |text| {
            let chosen = choices.iter().find(|(word, _meaning)| *word == text);
            chosen.map(|(_word, meaning)| *meaning).ok_or(hint)
        })
    }

    fn boolean(&mut self, name: &str) -> bool {
        self.values.entry(name).value == Value::Boolean(true)
    }

    fn number<T: TryFrom<i64> + Default>(&mut self, name: &str, range: RangeInclusive<i64>) -> T {
        match self.values.entry(name).value {
            Value::Number(number) if range.contains(&number) => {
                T::try_from(number).unwrap_or_default()
            }
            _ => {
                let (least, most) = range.into_inner();
                self.refuse(
                    name,
                    format!("must be a whole number from {least} to {most}"),
                );
                T::default()
            }
        }
    }

    fn duration(&mut self, name: &str, least: &str, most: &str) -> Duration {
        let duration = match parse_duration(self.values.text(name)) {
            Ok(duration) => duration,
            Err(message) => {
                self.refuse(name, message);
                return Duration::ZERO;
            }
        };
        let bound = |text| parse_duration(text).expect("bounds are durations");
        if duration < bound(least) || duration > bound(most) {
            self.refuse(
                name,
                format!("must be a duration from \"{least}\" to \"{most}\""),
            );
        }
        duration
    }

    fn refuse(&mut self, name: &str, message: impl Into<String>) {
        self.findings
            .add(name, Some(self.values.entry(name).origin.clone()), message);
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(
        |_error| "must be an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
    )
}

fn parse_public_url(text: &str) -> Result<String, &'static str> {
    let hint = "must be the address that people open, such as \"https://otp.example.com\", \
                without user, query and fragment";
    let parts = split_url(text).map_err(|_message| hint)?;
    if !matches!(parts.scheme, "http" | "https")
        || parts.userinfo.is_some()
        || parts.rest.contains(['?', '#', '@'])
        || !parts.rest.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(hint);
    }
    parse_host(parts.hosts, 443).map_err(|_message| hint)?;
    Ok(text.trim_end_matches('/').to_owned())
}

fn parse_origin(text: &str) -> Result<String, &'static str> {
    let hint =
        "must hold origins such as \"https://app.example.com\", without a path and without \"*\"";
    let parts = split_url(text).map_err(|_message| hint)?;
    let is_plain = parts.userinfo.is_none() && parts.rest.is_empty() && parts.hosts.is_ascii();
    if !matches!(parts.scheme, "http" | "https") || !is_plain {
        return Err(hint);
    }
    let default_port = if parts.scheme == "https" { 443 } else { 80 };
    let (host, port) = parse_host(parts.hosts, default_port).map_err(|_message| hint)?;
    // As browsers write it: they name a port only if it is another than that of the scheme.
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    Ok(if port == default_port {
        format!("{}://{host}", parts.scheme)
    } else {
        format!("{}://{host}:{port}", parts.scheme)
    })
}

fn parse_key_part(text: &str) -> Result<String, &'static str> {
    let is_plain =
        |character: char| character != ':' && !character.is_whitespace() && !character.is_control();
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("must be one word without `:`, which separates the parts of a key");
    }
    Ok(text.to_owned())
}

fn parse_product(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() || text.chars().count() > 60 || text.chars().any(char::is_control) {
        return Err("must be a name of 1 to 60 characters on one line");
    }
    Ok(text.to_owned())
}

/// A bare word that is no level would be taken for a target, and hide every line of ours.
fn parse_level(text: &str) -> Result<String, &'static str> {
    let hint = "must be a level (error, warn, info, debug, trace, off) or pairs such as \
                \"info,otpost::queue=debug\"";
    let is_level_or_pair = |directive: &str| {
        directive.contains(['=', '[']) || directive.trim().parse::<LevelFilter>().is_ok()
    };
    if text.trim().is_empty() || !text.split(',').all(is_level_or_pair) {
        return Err(hint);
    }
    EnvFilter::try_new(text).map_err(|_error| hint)?;
    Ok(text.to_owned())
}
