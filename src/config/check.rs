//! What must fit together across settings. A check whose settings already have a finding of their own
//! is left out, since it would only speak about stand-ins.

use std::net::SocketAddr;

use super::finding::Findings;
use super::layers::Values;
use super::settings::{Settings, Transport};
use super::smtp_url::SmtpSecurity;
use super::sources::Role;
use super::store_url::StoreUrl;

/// Make all checks across settings.
pub fn check(settings: &Settings, values: &Values, role: Role, findings: &mut Findings) {
    let mut check = Check {
        settings,
        values,
        role,
        findings,
    };
    check.listeners();
    check.keys();
    check.store();
    check.limits();
    check.mail();
    if settings.development {
        check.development();
    }
}

struct Check<'a> {
    settings: &'a Settings,
    values: &'a Values,
    role: Role,
    findings: &'a mut Findings,
}

impl Check<'_> {
    fn listeners(&mut self) {
        let (http, ops) = (self.settings.http.listen, self.settings.ops.listen);
        let any = http.ip().is_unspecified() || ops.ip().is_unspecified();
        let overlap =
            http.port() != 0 && http.port() == ops.port() && (any || http.ip() == ops.ip());
        if overlap && self.are_sound(&["http.listen", "ops.listen"]) {
            self.refuse(
                "ops.listen",
                "must be another address or port than `http.listen`",
            );
        }
    }

    fn keys(&mut self) {
        if !self.are_sound(&["keys.master", "keys.address", "keys.previous", "store.url"]) {
            return;
        }
        let keys = &self.settings.keys;
        let is_redis = self.settings.store.url.is_redis();
        let (master, address) = (keys.master.is_some(), keys.address.is_some());
        for (name, is_given, other) in [
            ("keys.master", master, address),
            ("keys.address", address, master),
        ] {
            if is_given {
                continue;
            }
            if is_redis {
                self.refuse(
                    name,
                    "is required on Redis; make the keys with `otpost keygen`",
                );
            } else if other || !keys.previous.is_empty() {
                let hint = "is missing: give both `keys.master` and `keys.address`, \
                            or no key at all to have them made beside a new database";
                self.refuse(name, hint);
            }
        }
        if let (Some(master), Some(address)) = (&keys.master, &keys.address)
            && master.expose() == address.expose()
        {
            self.refuse("keys.address", "must be another key than `keys.master`");
        }
    }

    fn store(&mut self) {
        if !self.are_sound(&["store.url"]) {
            return;
        }
        let store = &self.settings.store;
        if self.role != Role::All && !store.url.is_redis() {
            let message = format!(
                "role `{}` needs Redis, since split roles share the store and the queue; \
                 set a `redis://` URL or run role `all`",
                self.role.as_str()
            );
            self.refuse("store.url", message);
        }
        if store.ca_file.is_some() && !store.url.uses_tls() && self.are_sound(&["store.ca_file"]) {
            self.refuse(
                "store.ca_file",
                "is of no use without TLS; use `rediss://` in `store.url`",
            );
        }
        if matches!(store.url, StoreUrl::RedisCluster { .. })
            && !has_hash_tag(&self.settings.queue.prefix)
            && self.are_sound(&["queue.prefix"])
        {
            let hint = "must hold a hash tag on Redis Cluster, such as \"{bull}\", \
                        so that all keys of the queue are on one server";
            self.refuse("queue.prefix", hint);
        }
    }

    fn limits(&mut self) {
        let address = &self.settings.limits.address;
        let client = &self.settings.limits.client;
        for (shorter, less, longer, more) in [
            (
                "address.per_hour",
                address.per_hour,
                "address.per_day",
                address.per_day,
            ),
            (
                "address.failures_per_hour",
                address.failures_per_hour,
                "address.failures_per_day",
                address.failures_per_day,
            ),
            (
                "address.failures_per_day",
                address.failures_per_day,
                "address.failures_per_month",
                address.failures_per_month,
            ),
            (
                "client.generate_per_10m",
                client.generate_per_10m,
                "client.generate_per_hour",
                client.generate_per_hour,
            ),
        ] {
            let (shorter, longer) = (format!("limits.{shorter}"), format!("limits.{longer}"));
            if less > more && self.are_sound(&[&shorter, &longer]) {
                let message =
                    format!("must not be more than `{longer}`; lower this one or raise that one");
                self.refuse(&shorter, message);
            }
        }
    }

    fn mail(&mut self) {
        let mail = &self.settings.mail;
        let is_plain = mail
            .smtp
            .url
            .as_ref()
            .is_some_and(|url| url.security == SmtpSecurity::PlainLoopback);
        if is_plain && mail.smtp.ca_file.is_some() && self.are_sound(&["mail.smtp.ca_file"]) {
            let hint = "is of no use without TLS, and mail to this machine goes without; \
                        use `smtps://` in `mail.smtp.url`";
            self.refuse("mail.smtp.ca_file", hint);
        }
        if mail.transport == Transport::Mailbox || !self.role.mails() {
            return;
        }
        let hint =
            "is required to send mail; set it, or start with `--dev` to see mails at /dev/mailbox";
        for name in ["mail.smtp.url", "mail.from"] {
            if self.values.text(name).is_empty() && self.are_sound(&[name, "mail.transport"]) {
                self.refuse(name, hint);
            }
        }
    }

    /// In development mode whoever reaches a listener reads every code.
    fn development(&mut self) {
        let http = &self.settings.http;
        let is_loopback = |listen: SocketAddr| listen.ip().is_loopback();
        let leave =
            "to leave it, set `mail.smtp.url` and `mail.from`, and drop `--dev` and the mailbox";
        for (name, is_fine, rule) in [
            (
                "http.listen",
                is_loopback(http.listen),
                "must be a loopback address",
            ),
            (
                "ops.listen",
                is_loopback(self.settings.ops.listen),
                "must be a loopback address",
            ),
            (
                "http.trusted_proxies",
                http.trusted_proxies.is_empty(),
                "must be empty",
            ),
            ("http.api_keys", http.api_keys.is_empty(), "must be empty"),
            (
                "store.url",
                self.settings.store.url.is_loopback(),
                "must be on this machine",
            ),
        ] {
            if !is_fine && self.are_sound(&[name]) {
                self.refuse(name, format!("{rule} in development mode; {leave}"));
            }
        }
        if self.role != Role::All {
            let message = format!("must be `all` in development mode; {leave}");
            self.findings.add("--role", None, message);
        }
    }

    fn are_sound(&self, names: &[&str]) -> bool {
        // A file that could not be read counts for the secret that it holds.
        let concern = |name: &&str| {
            self.findings.concern(name) || self.findings.concern(&format!("{name}_file"))
        };
        !names.iter().any(concern)
    }

    fn refuse(&mut self, name: &str, message: impl Into<String>) {
        self.findings
            .add(name, Some(self.values.entry(name).origin.clone()), message);
    }
}

/// Whether Redis Cluster places keys with this prefix by a part of it: the first `{`, if a `}` follows
/// with something between.
fn has_hash_tag(prefix: &str) -> bool {
    prefix
        .split_once('{')
        .and_then(|(_before, after)| after.split_once('}'))
        .is_some_and(|(tag, _after)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_tag_has_something_between_its_braces() {
        for (prefix, expected) in [
            ("{bull}", true),
            ("a{b}c", true),
            ("bull", false),
            ("{}{b}", false),
            ("}{", false),
        ] {
            assert_eq!(has_hash_tag(prefix), expected, "{prefix}");
        }
    }
}
