//! Where the store is: a database file, a Redis server or a Redis Cluster. This choice decides both
//! backends, the store's and the queue's.

use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;

use super::url::{UrlParts, is_loopback_host, join_host, parse_credentials, parse_host, split_url};

const REDIS_PORT: u16 = 6379;

/// One server of a Redis Cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&join_host(&self.host, self.port))
    }
}

/// A parsed `store.url`. Shown as text it is a URL without user, password and database.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// A database file of this process.
    Sqlite(PathBuf),
    /// One Redis server, or Valkey.
    Redis {
        /// The server.
        node: Node,
        /// The number of its database.
        database: u8,
        /// The user to sign in as; none means Redis' default user.
        username: Option<SecretString>,
        /// The password to sign in with.
        password: Option<SecretString>,
        /// Whether the connection is protected by TLS.
        tls: bool,
    },
    /// A Redis Cluster, reached through any of these servers.
    RedisCluster {
        /// The servers to ask first; at least one.
        nodes: Vec<Node>,
        /// The user to sign in as; none means Redis' default user.
        username: Option<SecretString>,
        /// The password to sign in with.
        password: Option<SecretString>,
        /// Whether connections are protected by TLS.
        tls: bool,
    },
}

impl StoreUrl {
    /// Parse `sqlite:PATH`, `redis[s]://...` or `redis[s]+cluster://...`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let scheme_hint = "must begin with `sqlite:`, `redis://`, `rediss://`, `redis+cluster://` or `rediss+cluster://`";
        if let Some(path) = text.strip_prefix("sqlite:") {
            return parse_sqlite(path);
        }
        let parts = split_url(text).map_err(|hint| {
            if text.contains("://") {
                hint
            } else {
                scheme_hint
            }
        })?;
        match parts.scheme {
            "redis" => parse_redis(&parts, false),
            "rediss" => parse_redis(&parts, true),
            "redis+cluster" => parse_cluster(&parts, false),
            "rediss+cluster" => parse_cluster(&parts, true),
            _ => Err(scheme_hint),
        }
    }

    /// Whether the store can be shared by several processes.
    pub fn is_redis(&self) -> bool {
        !matches!(self, Self::Sqlite(_))
    }

    /// Whether connections to the store are protected by TLS.
    pub fn uses_tls(&self) -> bool {
        matches!(
            self,
            Self::Redis { tls: true, .. } | Self::RedisCluster { tls: true, .. }
        )
    }

    /// Whether the store is on this machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Redis { node, .. } => is_loopback_host(&node.host),
            Self::RedisCluster { nodes, .. } => {
                nodes.iter().all(|node| is_loopback_host(&node.host))
            }
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, servers) = match self {
            Self::Sqlite(path) => return write!(formatter, "sqlite:{}", path.display()),
            Self::Redis { node, tls, .. } => {
                (if *tls { "rediss" } else { "redis" }, node.to_string())
            }
            Self::RedisCluster { nodes, tls, .. } => {
                let nodes: Vec<String> = nodes.iter().map(Node::to_string).collect();
                (
                    if *tls {
                        "rediss+cluster"
                    } else {
                        "redis+cluster"
                    },
                    nodes.join(","),
                )
            }
        };
        write!(formatter, "{scheme}://{servers}")
    }
}

fn parse_sqlite(path: &str) -> Result<StoreUrl, &'static str> {
    let path = match path.strip_prefix("//") {
        None => path,
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err("must give the path right after `sqlite:`, without `//`"),
    };
    if path.is_empty() || path.ends_with('/') {
        return Err("needs the path of a file after `sqlite:`");
    }
    // SQLite itself would read `:memory:` and `?mode=...` as more than a name.
    if path.starts_with(':') || path.contains(['?', '\0']) {
        return Err("needs the plain path of a file after `sqlite:`, without options");
    }
    Ok(StoreUrl::Sqlite(PathBuf::from(path)))
}

fn parse_redis(parts: &UrlParts<'_>, tls: bool) -> Result<StoreUrl, &'static str> {
    let database = match parts.rest.strip_prefix('/').unwrap_or(parts.rest) {
        "" => 0,
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => number
            .parse()
            .map_err(|_overflow| "must have a database number of at most 255")?,
        _ => {
            return Err("must end after host, port and database number; \
                        percent-encode `/`, `?` and `#` in user and password");
        }
    };
    let credentials = parse_credentials(parts.userinfo)?;
    let (host, port) = parse_host(parts.hosts, REDIS_PORT)?;
    let (username, password) = (credentials.username, credentials.password);
    Ok(StoreUrl::Redis {
        node: Node { host, port },
        database,
        username,
        password,
        tls,
    })
}

fn parse_cluster(parts: &UrlParts<'_>, tls: bool) -> Result<StoreUrl, &'static str> {
    if !matches!(parts.rest, "" | "/") {
        return Err(
            "must end after the last server, since a cluster has no numbered databases; \
                    percent-encode `/`, `?` and `#` in user and password",
        );
    }
    let credentials = parse_credentials(parts.userinfo)?;
    let mut nodes = Vec::new();
    for server in parts.hosts.split(',') {
        let (host, port) = parse_host(server, REDIS_PORT)?;
        nodes.push(Node { host, port });
    }
    let (username, password) = (credentials.username, credentials.password);
    Ok(StoreUrl::RedisCluster {
        nodes,
        username,
        password,
        tls,
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn sqlite_takes_a_path() {
        for (text, expected) in [
            ("sqlite:otpost.db", "otpost.db"),
            ("sqlite:/var/lib/otpost/db", "/var/lib/otpost/db"),
            ("sqlite:///var/lib/otpost/db", "/var/lib/otpost/db"),
            ("sqlite:a b@c.db", "a b@c.db"),
        ] {
            let StoreUrl::Sqlite(path) = StoreUrl::parse(text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(path, PathBuf::from(expected));
        }
    }

    #[test]
    fn redis_has_a_server_a_database_and_credentials() {
        let text = "rediss://user:p%2Fw@Redis.example.com:6380/2";
        let parsed = StoreUrl::parse(text).unwrap();
        assert!(parsed.is_redis() && parsed.uses_tls() && !parsed.is_loopback());
        assert!(!format!("{parsed:?}").contains("p/w"));
        let StoreUrl::Redis {
            node,
            database,
            username,
            password,
            tls: true,
        } = parsed
        else {
            panic!()
        };
        assert_eq!(
            node,
            Node {
                host: "redis.example.com".to_owned(),
                port: 6380
            }
        );
        assert_eq!(database, 2);
        assert_eq!(username.unwrap().expose_secret(), "user");
        assert_eq!(password.unwrap().expose_secret(), "p/w");
    }

    #[test]
    fn redis_needs_no_more_than_a_host() {
        for text in [
            "redis://127.0.0.1",
            "redis://localhost/",
            "redis://[::1]:7000/15",
            "redis://:pass@localhost",
        ] {
            let parsed = StoreUrl::parse(text).unwrap();
            assert!(
                parsed.is_redis() && !parsed.uses_tls() && parsed.is_loopback(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_cluster_has_several_servers_and_one_user() {
        let parsed = StoreUrl::parse("redis+cluster://me:p%40w@a:7001,[::1]:7002,c").unwrap();
        assert!(parsed.is_redis() && !parsed.uses_tls() && !parsed.is_loopback());
        assert!(!format!("{parsed:?}").contains("p@w"));
        let StoreUrl::RedisCluster {
            nodes,
            username,
            password,
            ..
        } = parsed
        else {
            panic!()
        };
        let nodes: Vec<(&str, u16)> = nodes
            .iter()
            .map(|node| (node.host.as_str(), node.port))
            .collect();
        assert_eq!(nodes, [("a", 7001), ("::1", 7002), ("c", 6379)]);
        assert_eq!(username.unwrap().expose_secret(), "me");
        assert_eq!(password.unwrap().expose_secret(), "p@w");
        assert!(
            StoreUrl::parse("rediss+cluster://127.0.0.1:1,localhost:2")
                .unwrap()
                .is_loopback()
        );
    }

    #[test]
    fn a_store_is_shown_without_credentials() {
        for (text, shown) in [
            ("sqlite:otpost.db", "sqlite:otpost.db"),
            ("rediss://me:pw@[::1]/3", "rediss://[::1]:6379"),
            (
                "redis+cluster://me:pw@a:7001,b",
                "redis+cluster://a:7001,b:6379",
            ),
        ] {
            assert_eq!(StoreUrl::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_store_that_is_not_plainly_one_is_refused() {
        for text in [
            "",
            "otpost.db",
            "sqlite:",
            "sqlite:dir/",
            "sqlite::memory:",
            "sqlite:a?mode=ro",
            "sqlite://otpost.db",
            "postgres://host/db",
            "redis:host",
            "redis://",
            "redis://host:x",
            "redis://host/name",
            "redis://host/-1",
            "redis://host?protocol=resp3",
            "rediss://host#insecure",
            "redis://user@host",
            "redis://user:p/w@host",
            "redis://a,b",
            "redis://h o",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis+cluster://a:1,b:x",
            "redis+cluster://a/1",
            "redis+cluster://me@a",
            "valkey://host",
            "redis://host/123456",
        ] {
            assert!(StoreUrl::parse(text).is_err(), "{text}");
        }
    }
}
