//! The way to Redis: connect to one server or a cluster, with or without TLS, and run commands and
//! scripts, each within a deadline.
//!
//! A command whose outcome is unknown is never sent again. A lost connection is replaced in the
//! background, so that the first command after the server's return works.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    RedisError, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use tokio::time::Instant;

pub use check::CheckError;
pub use durability::{Durability, DurabilityLevel};
pub use target::{Encryption, RedisNode, RedisServers, RedisTarget};

mod check;
mod durability;
mod target;

/// How long one command may take, unless the caller wants it otherwise.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// How long the first connection may take; a server that is still starting is waited for.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to connect again: well under the 2 s in which service
/// must be back after the server is.
const LONGEST_PAUSE: Duration = Duration::from_millis(300);
/// So many redirections by a cluster are followed at once, the later ones after a pause.
const QUICK_REDIRECTIONS: u32 = 3;
/// The pause, in which slots move on.
const REDIRECTION_PAUSE: Duration = Duration::from_millis(20);

/// A script and the name under which servers remember it.
#[derive(Clone, Debug)]
pub struct Script {
    code: Cow<'static, str>,
    digest: String,
}

/// A connection that is shared by all of its clones, one for all commands.
#[derive(Clone)]
pub struct RedisLink {
    connection: Connection,
    deadline: Duration,
    servers: Arc<str>,
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
    /// The server refused the command, or the connection failed: then its outcome is unknown.
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

impl Script {
    /// A script in Lua.
    pub fn new(code: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        Self {
            digest: redis::Script::new(&code).get_hash().to_owned(),
            code,
        }
    }

    fn command<K: AsRef<[u8]>, A: AsRef<[u8]>>(&self, call: Call, keys: &[K], args: &[A]) -> Cmd {
        let mut command = match call {
            Call::Digest => redis::cmd("EVALSHA"),
            Call::Code => redis::cmd("EVAL"),
        };
        command.arg(match call {
            Call::Digest => self.digest.as_str(),
            Call::Code => &*self.code,
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
            servers: servers(target.nodes()).into(),
        })
    }

    /// Runs one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        let answer = tokio::time::timeout(self.deadline, self.send(command)).await;
        self.read(answer)
    }

    /// Runs a script, by its digest if the server remembers it. On a cluster all keys must share a
    /// hash tag.
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

    /// Whether keys without a common hash tag may be on different servers.
    pub fn is_cluster(&self) -> bool {
        matches!(self.connection, Connection::Cluster(_))
    }

    /// How long one command may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Answers when every server does.
    pub async fn ping(&self) -> Result<(), LinkError> {
        self.query::<Value>(&redis::cmd("PING")).await.map(drop)
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
/// lost. A redirection tells that the command was not run, so it is followed here, until the
/// caller's deadline.
async fn send_to_cluster(
    connection: &mut ClusterConnection,
    command: &Cmd,
) -> Result<Value, RedisError> {
    let mut answer = command.query_async(connection).await;
    for turn in 0_u32.. {
        let Err(error) = &answer else { break };
        let asked = asked_node(error);
        let is_elsewhere =
            is(error, ServerErrorKind::Moved) || is(error, ServerErrorKind::TryAgain);
        if asked.is_none() && !is_elsewhere {
            break;
        }
        if turn >= QUICK_REDIRECTIONS {
            tokio::time::sleep(REDIRECTION_PAUSE).await;
        }
        answer = match asked {
            Some((host, port)) => send_asking(connection, command, host, port).await,
            // The client has asked for the new map of slots by now.
            None => command.query_async(connection).await,
        };
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

/// The node that a slot is on its way to and that has the keys already.
fn asked_node(error: &RedisError) -> Option<(String, u16)> {
    if !is(error, ServerErrorKind::Ask) {
        return None;
    }
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
    within_connect_deadline(ConnectionManager::new_with_config(client, config))
        .await
        .map(Connection::Single)
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
        .tcp_settings(target::tcp_settings(deadline));
    if encrypted {
        builder = builder.tls(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder.certs(certificates);
    }
    let client = builder.build().map_err(|error| error.to_string())?;
    within_connect_deadline(client.get_async_connection())
        .await
        .map(Connection::Cluster)
}

async fn within_connect_deadline<T>(
    attempt: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, String> {
    match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {CONNECT_DEADLINE:?}")),
    }
}

fn servers(nodes: &[RedisNode]) -> String {
    let names: Vec<String> = nodes.iter().map(RedisNode::authority).collect();
    names.join(", ")
}

fn is(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == ErrorKind::Server(kind)
}
