//! Where Redis is, who we are there, and how the server is proved.

use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError,
};
use secrecy::{ExposeSecret, SecretString};

use super::ConnectError;

/// Where Redis is and who we are there.
#[derive(Clone, Debug)]
pub struct RedisTarget {
    /// One server, or some nodes of a cluster.
    pub servers: RedisServers,
    /// The user, if it is not the default one.
    pub user: Option<String>,
    /// The password, if one is needed.
    pub password: Option<SecretString>,
    /// Whether and by whom the server is proved.
    pub encryption: Encryption,
}

/// One server, or some nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    /// A single server.
    Single {
        /// Where it listens.
        node: RedisNode,
        /// The number of its database.
        database: u8,
    },
    /// Nodes by which the rest of the cluster is found.
    Cluster(Vec<RedisNode>),
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisNode {
    /// A name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Whether and by whom a server is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Plain text.
    None,
    /// TLS with the public authorities that Mozilla trusts, which the client brings along.
    Public,
    /// TLS with the authorities in this PEM file only.
    Authority(PathBuf),
}

impl RedisTarget {
    /// The servers as URLs without user and password, for other clients of the same servers.
    pub fn urls(&self) -> Vec<String> {
        let scheme = match self.encryption {
            Encryption::None => "redis",
            Encryption::Public | Encryption::Authority(_) => "rediss",
        };
        match &self.servers {
            RedisServers::Single { node, database } => {
                vec![format!("{scheme}://{}/{database}", node.authority())]
            }
            RedisServers::Cluster(nodes) => nodes
                .iter()
                .map(|node| format!("{scheme}://{}", node.authority()))
                .collect(),
        }
    }

    /// The authorities in PEM form, if the public ones that are compiled in are not to be used.
    pub fn authorities(&self) -> Result<Option<Vec<u8>>, ConnectError> {
        match &self.encryption {
            Encryption::None | Encryption::Public => Ok(None),
            Encryption::Authority(path) => match std::fs::read(path) {
                Ok(pem) => Ok(Some(pem)),
                Err(source) => Err(ConnectError::Authority {
                    path: path.clone(),
                    source,
                }),
            },
        }
    }

    /// The servers to begin with.
    pub fn nodes(&self) -> &[RedisNode] {
        match &self.servers {
            RedisServers::Single { node, .. } => std::slice::from_ref(node),
            RedisServers::Cluster(nodes) => nodes,
        }
    }

    /// How the client connects to one of the servers.
    pub fn connection_info(
        &self,
        node: &RedisNode,
        deadline: Duration,
    ) -> Result<ConnectionInfo, RedisError> {
        let address = match self.encryption {
            Encryption::None => ConnectionAddr::Tcp(node.host.clone(), node.port),
            Encryption::Public | Encryption::Authority(_) => ConnectionAddr::TcpTls {
                host: node.host.clone(),
                port: node.port,
                insecure: false,
                tls_params: None,
            },
        };
        // With RESP3 a lost connection is noticed, and replaced, without a command that fails.
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if let RedisServers::Single { database, .. } = self.servers {
            settings = settings.set_db(i64::from(database));
        }
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose_secret());
        }
        Ok(address
            .into_connection_info()?
            .set_redis_settings(settings)
            .set_tcp_settings(tcp_settings(deadline)))
    }
}

impl RedisNode {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A peer that has vanished without a word is given up after one deadline; the kernel's own
/// patience would be a quarter of an hour.
pub fn tcp_settings(deadline: Duration) -> TcpSettings {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(2));
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(probes);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(deadline);
    #[cfg(not(target_os = "linux"))]
    let _ = deadline;
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_no_password_and_brackets_around_ipv6() {
        let target = RedisTarget {
            servers: RedisServers::Single {
                node: RedisNode {
                    host: "::1".to_owned(),
                    port: 6380,
                },
                database: 3,
            },
            user: Some("app".to_owned()),
            password: Some("hidden".into()),
            encryption: Encryption::Public,
        };
        assert_eq!(target.urls(), ["rediss://[::1]:6380/3"]);
        assert!(!format!("{target:?}").contains("hidden"));
    }
}
