//! The parts of a server's URL: credentials, host and port. Errors are fixed texts, so that none can
//! show the password that the URL holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use secrecy::SecretString;

/// A URL cut at its delimiters, nothing decoded.
pub struct UrlParts<'a> {
    /// What stands before `://`.
    pub scheme: &'a str,
    /// What stands before the last `@` of the authority.
    pub userinfo: Option<&'a str>,
    /// Host and port, or several of them.
    pub hosts: &'a str,
    /// Path, query and fragment with the character that begins them.
    pub rest: &'a str,
}

/// User and password, percent-decoded.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The user, if one is given.
    pub username: Option<SecretString>,
    /// The password, if one is given.
    pub password: Option<SecretString>,
}

/// Cut a URL into its parts.
pub fn split_url(text: &str) -> Result<UrlParts<'_>, &'static str> {
    if text
        .chars()
        .any(|character| character.is_whitespace() || character.is_control())
    {
        return Err("holds a space or a control character; percent-encode it in user and password");
    }
    let Some((scheme, after_scheme)) = text.split_once("://") else {
        return Err("must begin with a scheme and `://`");
    };
    let end = after_scheme
        .find(['/', '?', '#'])
        .unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(end);
    let (userinfo, hosts) = match authority.rsplit_once('@') {
        Some((userinfo, hosts)) => (Some(userinfo), hosts),
        None => (None, authority),
    };
    Ok(UrlParts {
        scheme,
        userinfo,
        hosts,
        rest,
    })
}

/// Decode `user:password`; `:password` alone is a password without a user.
pub fn parse_credentials(userinfo: Option<&str>) -> Result<Credentials, &'static str> {
    let Some(userinfo) = userinfo else {
        return Ok(Credentials::default());
    };
    let Some((username, password)) = userinfo.split_once(':') else {
        return Err("has a user without a password; write `user:password@host`");
    };
    if password.is_empty() {
        return Err("has an empty password; write `user:password@host`");
    }
    let username = percent_decode(username)?;
    Ok(Credentials {
        username: (!username.is_empty()).then(|| SecretString::from(username)),
        password: Some(SecretString::from(percent_decode(password)?)),
    })
}

/// Parse `host`, `host:port` or `[v6]:port`. The host comes back in lower case, an internationalised
/// name as A-labels, an IPv6 address without brackets.
pub fn parse_host(text: &str, default_port: u16) -> Result<(String, u16), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, after) = bracketed
                .split_once(']')
                .ok_or("has an IPv6 address without its closing `]`")?;
            let address: Ipv6Addr = address
                .parse()
                .map_err(|_error| "has a malformed IPv6 address in brackets")?;
            let port = match after {
                "" => None,
                _ => Some(
                    after
                        .strip_prefix(':')
                        .ok_or("has text between `]` and the port")?,
                ),
            };
            (address.to_string(), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (parse_host_name(host)?, Some(port)),
            None => (parse_host_name(text)?, None),
        },
    };
    Ok((host, port.map_or(Ok(default_port), parse_port)?))
}

/// Host and port as they stand in a URL.
pub fn join_host(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Whether this host is this machine by its very name: `localhost`, 127.0.0.0/8 or `::1`.
pub fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The URL with `***` for its password, or for all of its credentials if there is no telling which
/// part is the password.
pub fn mask_url(text: &str) -> String {
    let Ok(UrlParts {
        scheme,
        userinfo,
        hosts,
        rest,
    }) = split_url(text)
    else {
        return if text.is_empty() {
            String::new()
        } else {
            "***".to_owned()
        };
    };
    // A password with a raw slash in it ends up in the path.
    if rest.contains('@') {
        return "***".to_owned();
    }
    match userinfo.map(|userinfo| userinfo.split_once(':')) {
        None => text.to_owned(),
        Some(Some((username, _password))) => format!("{scheme}://{username}:***@{hosts}{rest}"),
        Some(None) => format!("{scheme}://***@{hosts}{rest}"),
    }
}

fn parse_host_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("has no host");
    }
    let malformed = "has a malformed host; percent-encode `@ : / ? # %` in user and password";
    let host = idna::domain_to_ascii(text).map_err(|_errors| malformed)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if host.len() > 253 || host.starts_with('.') || host.contains("..") || !host.bytes().all(plain)
    {
        return Err(malformed);
    }
    // Resolvers read "127.1" and "0x7f.1" as addresses, each in its own way.
    let last_label = host.rsplit('.').next().unwrap_or_default();
    if last_label.starts_with(|first: char| first.is_ascii_digit())
        && host.parse::<Ipv4Addr>().is_err()
    {
        return Err("has a host that is neither a name nor an IPv4 address of four numbers");
    }
    Ok(host)
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    let hint = "has a malformed port; percent-encode `@ : / ? # %` in user and password";
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(hint);
    }
    text.parse().ok().filter(|port| *port > 0).ok_or(hint)
}

fn percent_decode(text: &str) -> Result<String, &'static str> {
    let malformed =
        "has a malformed percent-encoding in user or password; write `%` itself as `%25`";
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [
            bytes.next().unwrap_or_default(),
            bytes.next().unwrap_or_default(),
        ];
        let value = data_encoding::HEXLOWER_PERMISSIVE
            .decode(&digits)
            .map_err(|_error| malformed)?;
        decoded.extend(value);
    }
    let decoded = String::from_utf8(decoded).map_err(|_error| malformed)?;
    // SMTP and its AUTH PLAIN end fields at line breaks and at NUL.
    if decoded.chars().any(char::is_control) {
        return Err("has a control character in user or password");
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_host_has_a_port_or_the_default_one() {
        for (text, host, port) in [
            ("mail.example.com", "mail.example.com", 25),
            ("Mail.Example.COM:587", "mail.example.com", 587),
            ("smtp_relay:1025", "smtp_relay", 1025),
            ("bücher.example", "xn--bcher-kva.example", 25),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("[::1]", "::1", 25),
            ("[2001:DB8::1]:65535", "2001:db8::1", 65535),
        ] {
            assert_eq!(parse_host(text, 25), Ok((host.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn a_malformed_host_or_port_is_refused() {
        for text in [
            "",
            ":25",
            "host:",
            "host:0",
            "host:65536",
            "host:+25",
            "host:25:26",
            "::1",
            "[::1",
            "[::1]25",
            "[fe80::1%eth0]",
            "[localhost]",
            "a b",
            "ho%73t",
            "127.1",
            "0x7f.1",
            "10.0.0.256",
            "a..b",
            ".a",
            "a\\b",
            "a,b",
        ] {
            assert!(parse_host(text, 25).is_err(), "{text}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in ["localhost", "127.0.0.1", "127.255.255.254", "::1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "localhost.example.com",
            "128.0.0.1",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
            "127.example",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn user_and_password_are_percent_decoded() {
        let credentials =
            parse_credentials(Some("no-reply%40example.com:p%C3%A4%3a%2F:x")).unwrap();
        assert_eq!(
            credentials.username.unwrap().expose_secret(),
            "no-reply@example.com"
        );
        assert_eq!(credentials.password.unwrap().expose_secret(), "pä:/:x");
    }

    #[test]
    fn malformed_credentials_are_refused() {
        for text in [
            "user", "", "user:", "user:%", "user:%4", "user:%zz", "user:%ff", "user:%00", "u%0a:x",
        ] {
            assert!(parse_credentials(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mask_covers_the_password() {
        for (text, masked) in [
            ("", ""),
            ("smtp://host", "smtp://host"),
            ("smtp://user:pa@ss@host:25", "smtp://user:***@host:25"),
            ("redis://:pass@host/1", "redis://:***@host/1"),
            ("redis://token@host", "redis://***@host"),
            ("smtp://user:pa/ss@host", "***"),
            ("user:pass@host", "***"),
        ] {
            assert_eq!(mask_url(text), masked, "{text}");
        }
    }
}
