//! The address of the mail server. `smtp://` asks for STARTTLS and never goes on without it, unless
//! the host is this machine.

use std::fmt;

use secrecy::SecretString;

use super::url::{UrlParts, is_loopback_host, join_host, parse_credentials, parse_host, split_url};

/// How the connection to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// TLS after STARTTLS; a server that does not offer it gets no mail.
    StartTls,
    /// TLS from the first byte.
    Implicit,
    /// No TLS: the server is this machine.
    PlainLoopback,
}

/// A parsed `smtp://` or `smtps://` URL. Shown as text it has neither user nor password.
#[derive(Clone, Debug)]
pub struct SmtpUrl {
    /// How the connection is protected.
    pub security: SmtpSecurity,
    /// Name or address of the server, an IPv6 address without brackets.
    pub host: String,
    /// Port of the server.
    pub port: u16,
    /// The user to sign in as; with a password or not at all.
    pub username: Option<SecretString>,
    /// The password to sign in with.
    pub password: Option<SecretString>,
}

impl SmtpUrl {
    /// Parse `smtp://[user:password@]host[:587]` or `smtps://[user:password@]host[:465]`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let scheme_hint = "must begin with `smtp://` (STARTTLS) or `smtps://` (TLS from the start)";
        let UrlParts {
            scheme,
            userinfo,
            hosts,
            rest,
        } = split_url(text).map_err(|hint| {
            if text.contains("://") {
                hint
            } else {
                scheme_hint
            }
        })?;
        let (security, default_port) = match scheme {
            "smtp" => (SmtpSecurity::StartTls, 587),
            "smtps" => (SmtpSecurity::Implicit, 465),
            _ => return Err(scheme_hint),
        };
        if !matches!(rest, "" | "/") {
            return Err("must end after host and port; \
                        percent-encode `/`, `?` and `#` in user and password");
        }
        let (host, port) = parse_host(hosts, default_port)?;
        let credentials = parse_credentials(userinfo)?;
        if credentials.username.is_none() && credentials.password.is_some() {
            return Err("has a password without a user; write `user:password@host`");
        }
        let security = match security {
            SmtpSecurity::StartTls if is_loopback_host(&host) => SmtpSecurity::PlainLoopback,
            security => security,
        };
        let (username, password) = (credentials.username, credentials.password);
        Ok(Self {
            security,
            host,
            port,
            username,
            password,
        })
    }
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.security {
            SmtpSecurity::Implicit => "smtps",
            SmtpSecurity::StartTls | SmtpSecurity::PlainLoopback => "smtp",
        };
        write!(formatter, "{scheme}://{}", join_host(&self.host, self.port))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_scheme_and_the_host_decide_the_protection() {
        use SmtpSecurity::{Implicit, PlainLoopback, StartTls};
        for (text, security, host, port) in [
            ("smtp://mail.example.com", StartTls, "mail.example.com", 587),
            (
                "smtp://mail.example.com:25/",
                StartTls,
                "mail.example.com",
                25,
            ),
            ("smtp://10.0.0.1:25", StartTls, "10.0.0.1", 25),
            (
                "smtp://localhost.example.com",
                StartTls,
                "localhost.example.com",
                587,
            ),
            (
                "smtp://[::ffff:127.0.0.1]",
                StartTls,
                "::ffff:127.0.0.1",
                587,
            ),
            (
                "smtps://mail.example.com",
                Implicit,
                "mail.example.com",
                465,
            ),
            ("smtps://localhost:1465", Implicit, "localhost", 1465),
            ("smtp://localhost:1025", PlainLoopback, "localhost", 1025),
            ("smtp://LOCALHOST", PlainLoopback, "localhost", 587),
            ("smtp://127.0.0.2", PlainLoopback, "127.0.0.2", 587),
            ("smtp://[::1]:25", PlainLoopback, "::1", 25),
        ] {
            let url = SmtpUrl::parse(text).unwrap();
            assert_eq!(
                (url.security, url.host.as_str(), url.port),
                (security, host, port),
                "{text}"
            );
            assert!(url.username.is_none() && url.password.is_none());
        }
    }

    #[test]
    fn credentials_are_decoded_also_for_loopback() {
        let url = SmtpUrl::parse("smtp://me%40example.com:p%2Fw@127.0.0.1").unwrap();
        assert_eq!(
            url.username.as_ref().unwrap().expose_secret(),
            "me@example.com"
        );
        assert_eq!(url.password.as_ref().unwrap().expose_secret(), "p/w");
        let shown = format!("{url:?}");
        assert!(!shown.contains("p/w") && !shown.contains("me@"), "{shown}");
        assert_eq!(url.to_string(), "smtp://127.0.0.1:587");
    }

    #[test]
    fn a_mail_server_that_is_not_plainly_one_is_refused() {
        for text in [
            "mail.example.com",
            "mail.example.com:25",
            "http://mail.example.com",
            "smtp:mail.example.com",
            "SMTP+TLS://host",
            "smtp://",
            "smtp://user:pass@",
            "smtp://user@host",
            "smtp://:pass@host",
            "smtp://user:@host",
            "smtp://user:p/w@host",
            "smtp://user:p#w@host",
            "smtp://user:p?w@host",
            "smtp://host/path",
            "smtp://host?tls=none",
            "smtp://host#x",
            "smtp://host:port",
            "smtp://user:a b@host",
            "smtp://user:%@host",
            "smtp://a,b",
            " smtp://host",
            "smtp://user:12/x@host",
        ] {
            assert!(SmtpUrl::parse(text).is_err(), "{text}");
        }
    }
}
