//! The way to Redis: connect to one server or a cluster, with or without TLS, and run commands and
//! scripts, each within a deadline.
//!
//! A command whose outcome is unknown is never sent again. A lost connection is replaced in the
//! background, so that the first command after the server's return works.

use std::path::PathBuf;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, ServerErrorKind,
    TlsCertificates, TlsMode, Value,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

/// How long one command may take, unless the caller wants it otherwise.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// How long the first connection may take; a server that is still starting is waited for.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to connect again: well under the 2 s in which service
/// must be back after the server is.
const LONGEST_PAUSE: Duration = Duration::from_millis(300);
/// The oldest server that has every command the scripts use, and RESP3.
const OLDEST_VERSION: (u32, u32) = (6, 2);
/// How often one call follows a cluster's redirection; each means that the command was not run.
const REDIRECTIONS: usize = 5;

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
    /// TLS with the authorities of the operating system.
    System,
    /// TLS with the authorities in this PEM file only.
    Authority(PathBuf),
}

/// A script and the name under which servers remember it.
#[derive(Clone, Debug)]
pub struct Script {
    code: &'static str,
    digest: String,
}

/// A connection that is shared by all of its clones, one for all commands.
#[derive(Clone)]
pub struct RedisLink {
    connection: Connection,
    deadline: Duration,
}

#[derive(Clone)]
enum Connection {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It is unknown whether the command was run.
    #[error("Redis did not answer within {0:?}")]
    NoAnswer(Duration),
    /// The connection failed, or the server refused the command.
    #[error("Redis failed: {0}")]
    Failed(RedisError),
    /// The server answered something else than expected.
    #[error("Redis answered something unexpected: {0}")]
    Nonsense(String),
}

/// The link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file with the authorities could not be read.
    #[error("can't read `{path}`")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The target makes no sense to the client.
    #[error("Redis can't be reached with these settings: {0}")]
    Settings(RedisError),
    /// No server answered, or it refused the log-in.
    #[error("can't connect to Redis at {servers}: {reason}")]
    Refused {
        /// Host and port of every server that was given.
        servers: String,
        /// What the last attempt met.
        reason: String,
    },
}

/// The server is not fit to hold codes.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It does not answer.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its version is too old.
    #[error("Redis {found} is too old; version 6.2 or newer is needed, or Valkey")]
    Version {
        /// The server's version.
        found: String,
    },
    /// It may throw away live codes and queued mails when its memory is full.
    #[error(
        "Redis has `maxmemory-policy {found}` and would drop codes and jobs when its memory is full; set it to `noeviction` (`CONFIG SET maxmemory-policy noeviction`, and in redis.conf)"
    )]
    Eviction {
        /// The server's policy.
        found: String,
    },
}

impl RedisTarget {
    /// The servers as URLs without user and password, for other clients of the same servers.
    pub fn urls(&self) -> Vec<String> {
        let scheme = match self.encryption {
            Encryption::None => "redis",
            Encryption::System | Encryption::Authority(_) => "rediss",
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

    /// The authorities in PEM form, if the system's are not to be used.
    pub fn authorities(&self) -> Result<Option<Vec<u8>>, ConnectError> {
        match &self.encryption {
            Encryption::None | Encryption::System => Ok(None),
            Encryption::Authority(path) => match std::fs::read(path) {
                Ok(pem) => Ok(Some(pem)),
                Err(source) => Err(ConnectError::Authority {
                    path: path.clone(),
                    source,
                }),
            },
        }
    }

    fn nodes(&self) -> &[RedisNode] {
        match &self.servers {
            RedisServers::Single { node, .. } => std::slice::from_ref(node),
            RedisServers::Cluster(nodes) => nodes,
        }
    }

    fn connection_info(
        &self,
        node: &RedisNode,
        deadline: Duration,
    ) -> Result<ConnectionInfo, RedisError> {
        let address = match self.encryption {
            Encryption::None => ConnectionAddr::Tcp(node.host.clone(), node.port),
            Encryption::System | Encryption::Authority(_) => ConnectionAddr::TcpTls {
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
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl Script {
    /// A script in Lua.
    pub fn new(code: &'static str) -> Self {
        Self {
            code,
            digest: redis::Script::new(code).get_hash().to_owned(),
        }
    }

    fn command<K: AsRef<[u8]>, A: AsRef<[u8]>>(&self, call: Call, keys: &[K], args: &[A]) -> Cmd {
        let mut command = match call {
            Call::Digest => redis::cmd("EVALSHA"),
            Call::Code => redis::cmd("EVAL"),
        };
        command.arg(match call {
            Call::Digest => self.digest.as_str(),
            Call::Code => self.code,
        });
        command.arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        for arg in args {
            command.arg(arg.as_ref());
        }
        command
    }
}

#[derive(Clone, Copy)]
enum Call {
    Digest,
    Code,
}

impl RedisLink {
    /// Connects, within 5 s; each command on the link then takes at most `deadline`.
    pub async fn connect(target: &RedisTarget, deadline: Duration) -> Result<Self, ConnectError> {
        if target.encryption != Encryption::None {
            // Whoever came first has chosen; one provider is compiled in, so the choice is the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let certificates = target.authorities()?.map(|pem| TlsCertificates {
            client_tls: None,
            root_cert: Some(pem),
        });
        let infos: Result<Vec<ConnectionInfo>, RedisError> = target
            .nodes()
            .iter()
            .map(|node| target.connection_info(node, deadline))
            .collect();
        let infos = infos.map_err(ConnectError::Settings)?;
        let connection = match &target.servers {
            RedisServers::Single { .. } => single(infos, certificates, deadline).await,
            RedisServers::Cluster(_) => cluster(infos, certificates, deadline).await,
        };
        let connection = connection.map_err(|reason| ConnectError::Refused {
            servers: servers(target.nodes()),
            reason,
        })?;
        Ok(Self {
            connection,
            deadline,
        })
    }

    /// Runs one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        let answer = tokio::time::timeout(self.deadline, self.send(command)).await;
        self.read(answer)
    }

    /// Runs a script, by its digest if the server remembers it. All keys must share a hash tag.
    pub async fn invoke<T, K, A>(
        &self,
        script: &Script,
        keys: &[K],
        args: &[A],
    ) -> Result<T, LinkError>
    where
        T: FromRedisValue,
        K: AsRef<[u8]>,
        A: AsRef<[u8]>,
    {
        let by_digest = script.command(Call::Digest, keys, args);
        let call = async {
            match self.send(&by_digest).await {
                // The server does not know the script, so nothing was run.
                Err(error) if is(&error, ServerErrorKind::NoScript) => {
                    self.send(&script.command(Call::Code, keys, args)).await
                }
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(self.deadline, call).await;
        self.read(answer)
    }

    /// Answers when every server does.
    pub async fn ping(&self) -> Result<(), LinkError> {
        self.query::<Value>(&redis::cmd("PING")).await.map(drop)
    }

    /// Checks at start that the servers answer, are new enough and never evict keys. What a server
    /// does not tell is a warning in the log.
    pub async fn check(&self) -> Result<(), CheckError> {
        self.ping().await?;
        let answer = match self.query::<Value>(&redis::cmd("INFO")).await {
            Ok(answer) => answer,
            Err(LinkError::Failed(error)) if is(&error, ServerErrorKind::NoPerm) => {
                tracing::warn!(
                    "Redis does not let this user run `INFO`, so its version and its eviction policy were not checked; `maxmemory-policy` must be `noeviction`"
                );
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let reports = match answer {
            // A cluster answers with one report for each of its nodes.
            Value::Map(nodes) => nodes.into_iter().map(|(_, report)| report).collect(),
            report => vec![report],
        };
        for report in reports {
            check_report(&text(report)?)?;
        }
        Ok(())
    }

    fn read<T: FromRedisValue>(
        &self,
        answer: Result<Result<Value, RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, LinkError> {
        match answer {
            Ok(Ok(value)) => {
                T::from_redis_value(value).map_err(|error| LinkError::Nonsense(error.to_string()))
            }
            Ok(Err(error)) if error.is_timeout() => Err(LinkError::NoAnswer(self.deadline)),
            Ok(Err(error)) => Err(LinkError::Failed(error)),
            Err(_) => Err(LinkError::NoAnswer(self.deadline)),
        }
    }

    async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        match &self.connection {
            Connection::Single(connection) => command.query_async(&mut connection.clone()).await,
            Connection::Cluster(connection) => {
                send_to_cluster(&mut connection.clone(), command).await
            }
        }
    }
}

/// The client's own retries are off, since they also send a command again after its connection was
/// lost. A redirection tells that the command was not run, so it is followed here.
async fn send_to_cluster(
    connection: &mut ClusterConnection,
    command: &Cmd,
) -> Result<Value, RedisError> {
    let mut answer = command.query_async(connection).await;
    for _ in 0..REDIRECTIONS {
        match &answer {
            // The client has asked for the new map of slots by now.
            Err(error) if is(error, ServerErrorKind::Moved) => {
                answer = command.query_async(connection).await;
            }
            Err(error) if is(error, ServerErrorKind::Ask) => {
                let Some((host, port)) = asked_node(error) else {
                    return answer;
                };
                answer = send_asking(connection, command, host, port).await;
            }
            _ => return answer,
        }
    }
    answer
}

async fn send_asking(
    connection: &mut ClusterConnection,
    command: &Cmd,
    host: String,
    port: u16,
) -> Result<Value, RedisError> {
    let mut both = redis::pipe();
    both.cmd("ASKING").add_command(command.clone());
    let node = SingleNodeRoutingInfo::ByAddress { host, port };
    let mut answers = connection.route_pipeline(both, 0, 2, node).await?;
    answers.pop().unwrap_or(Value::Nil).extract_error()
}

fn asked_node(error: &RedisError) -> Option<(String, u16)> {
    let (address, _slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

async fn single(
    mut infos: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    deadline: Duration,
) -> Result<Connection, String> {
    let info = infos.pop().ok_or("no server is given")?;
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    };
    let client = client.map_err(|error| error.to_string())?;
    first_connection(&client).await?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(deadline))
        .set_response_timeout(Some(deadline))
        // These are attempts to connect; commands are sent once. Giving up after some of them would
        // leave a failure behind for the first command after the server's return.
        .set_number_of_retries(usize::MAX)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(LONGEST_PAUSE);
    ConnectionManager::new_lazy_with_config(client, config)
        .map(Connection::Single)
        .map_err(|error| error.to_string())
}

/// Tries to connect until the deadline while nobody listens; any other failure ends it at once,
/// such as a wrong password.
async fn first_connection(client: &Client) -> Result<(), String> {
    let end = Instant::now() + CONNECT_DEADLINE;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_DEADLINE))
        .set_response_timeout(Some(CONNECT_DEADLINE));
    let attempts = async {
        loop {
            let attempt = client
                .get_multiplexed_async_connection_with_config(&config)
                .await;
            match attempt {
                Ok(_) => return Ok(()),
                Err(error) if error.is_connection_refusal() && Instant::now() < end => {
                    tokio::time::sleep(LONGEST_PAUSE).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    tokio::time::timeout_at(end + LONGEST_PAUSE, attempts)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {CONNECT_DEADLINE:?}")))
}

async fn cluster(
    infos: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    deadline: Duration,
) -> Result<Connection, String> {
    let encrypted = infos
        .iter()
        .any(|info| matches!(info.addr(), ConnectionAddr::TcpTls { .. }));
    let mut builder = ClusterClient::builder(infos)
        .retries(0)
        .connection_timeout(deadline)
        .response_timeout(deadline)
        .tcp_settings(tcp_settings(deadline));
    if encrypted {
        builder = builder.tls(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder.certs(certificates);
    }
    let client = builder.build().map_err(|error| error.to_string())?;
    match tokio::time::timeout(CONNECT_DEADLINE, client.get_async_connection()).await {
        Ok(Ok(connection)) => Ok(Connection::Cluster(connection)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {CONNECT_DEADLINE:?}")),
    }
}

/// A peer that has vanished without a word is given up after one deadline; the kernel's own
/// patience would be a quarter of an hour.
fn tcp_settings(deadline: Duration) -> TcpSettings {
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

fn servers(nodes: &[RedisNode]) -> String {
    let names: Vec<String> = nodes.iter().map(RedisNode::authority).collect();
    names.join(", ")
}

fn is(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == ErrorKind::Server(kind)
}

fn text(report: Value) -> Result<String, LinkError> {
    String::from_redis_value(report).map_err(|error| LinkError::Nonsense(error.to_string()))
}

fn check_report(report: &str) -> Result<(), CheckError> {
    let field = |name: &str| {
        report
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    if let Some(found) = field("redis_version")
        && version(found).is_some_and(|version| version < OLDEST_VERSION)
    {
        return Err(CheckError::Version {
            found: found.to_owned(),
        });
    }
    match field("maxmemory_policy") {
        Some("noeviction") => Ok(()),
        Some(found) => Err(CheckError::Eviction {
            found: found.to_owned(),
        }),
        None => {
            tracing::warn!(
                "Redis does not tell its eviction policy; `maxmemory-policy` must be `noeviction`"
            );
            Ok(())
        }
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn report(version: &str, policy: &str) -> String {
        format!("# Server\r\nredis_version:{version}\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n")
    }

    #[rstest]
    #[case("6.2.0")]
    #[case("7.0.15")]
    #[case("10.0.1")]
    fn a_new_server_that_never_evicts_is_fit(#[case] version: &str) {
        assert!(check_report(&report(version, "noeviction")).is_ok());
    }

    #[rstest]
    #[case("5.0.14")]
    #[case("6.0.20")]
    fn an_old_server_is_not_fit(#[case] version: &str) {
        let checked = check_report(&report(version, "noeviction"));
        assert!(matches!(checked, Err(CheckError::Version { found }) if found == version));
    }

    #[rstest]
    #[case("allkeys-lru")]
    #[case("volatile-ttl")]
    fn a_server_that_evicts_is_not_fit(#[case] policy: &str) {
        let error = check_report(&report("7.0.0", policy)).unwrap_err();
        assert!(error.to_string().contains(policy));
        assert!(error.to_string().contains("noeviction"));
    }

    #[test]
    fn a_server_that_tells_nothing_passes() {
        assert!(check_report("").is_ok());
    }

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
            encryption: Encryption::System,
        };
        assert_eq!(target.urls(), ["rediss://[::1]:6380/3"]);
        assert!(!format!("{target:?}").contains("hidden"));
    }
}
