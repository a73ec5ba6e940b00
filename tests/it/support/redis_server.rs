//! A Redis server of one test's own, or three of them as a cluster: started from the
//! `redis-server` binary on free ports, ended with the test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use otpost::redis_link::{Encryption, RedisNode, RedisServers, RedisTarget};
use tempfile::TempDir;

/// A running server, or the folder and port of one that was killed.
pub struct RedisServer {
    child: Option<Child>,
    folder: TempDir,
    port: u16,
    options: Vec<String>,
}

impl RedisServer {
    /// Starts a server that writes every command to its file before it answers.
    pub async fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// Starts a server with these options.
    pub async fn start_with(options: &[&str]) -> Self {
        let mut server = Self {
            child: None,
            folder: tempfile::tempdir().expect("a folder for the server"),
            port: free_port(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        server.restart().await;
        server
    }

    /// Starts a cluster of this one server, whose clients find it at another port of this machine.
    pub async fn start_as_cluster(announced: u16) -> Self {
        let announced = announced.to_string();
        let server = Self::start_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-announce-port",
            &announced,
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ])
        .await;
        let mut all_slots = redis::cmd("CLUSTER");
        all_slots
            .arg("ADDSLOTS")
            .arg((0..16_384).collect::<Vec<_>>());
        run(&server, &all_slots).await;
        agree(std::slice::from_ref(&server)).await;
        server
    }

    /// Kills the server as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child.wait().expect("the server ends");
        }
    }

    /// Starts the server again on its old port and data, and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--maxmemory-policy", "noeviction"])
            .args(&self.options)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`redis-server` must be installed for these tests");
        self.child = Some(child);
        let ready = async {
            while !self.answers().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready)
            .await
            .expect("redis-server answers");
    }

    /// The server's address for settings.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The server as a target of our own link.
    pub fn target(&self) -> RedisTarget {
        RedisTarget {
            servers: RedisServers::Single {
                node: self.node(),
                database: 0,
            },
            user: None,
            password: None,
            encryption: Encryption::None,
        }
    }

    /// Where the server listens.
    pub fn node(&self) -> RedisNode {
        RedisNode {
            host: "127.0.0.1".to_owned(),
            port: self.port,
        }
    }

    /// Stops the server's process without ending it, or lets it go on.
    pub fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("a running server");
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(status.expect("`kill` is installed").success());
    }

    /// The folder with the server's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a valid URL");
        client
            .get_multiplexed_async_connection()
            .await
            .expect("the server takes connections")
    }

    async fn answers(&self) -> bool {
        let client = redis::Client::open(self.url()).expect("a valid URL");
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            return false;
        };
        redis::cmd("PING")
            .query_async::<String>(&mut connection)
            .await
            .is_ok()
    }
}

/// Three servers that share the slots.
pub struct RedisCluster {
    /// The servers.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the servers, deals out the slots and waits until all of them agree.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for place in 0..3_u16 {
            let node =
                RedisServer::start_with(&["--cluster-enabled", "yes", "--appendonly", "yes"]).await;
            let first = place * 5_462;
            let slots = first..(first + 5_462).min(16_384);
            run(
                &node,
                redis::cmd("CLUSTER")
                    .arg("ADDSLOTS")
                    .arg(slots.collect::<Vec<_>>()),
            )
            .await;
            run(
                &node,
                redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(place + 1),
            )
            .await;
            nodes.push(node);
        }
        for node in &nodes[1..] {
            let port = nodes[0].port;
            run(
                node,
                redis::cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(port),
            )
            .await;
        }
        agree(&nodes).await;
        Self { nodes }
    }

    /// The cluster as a target of our own link, which has to find two of the nodes by itself.
    pub fn target(&self) -> RedisTarget {
        RedisTarget {
            servers: RedisServers::Cluster(vec![self.nodes[0].node()]),
            ..self.nodes[0].target()
        }
    }

    /// The slot of a key, and the place of the node that holds it.
    pub async fn owner(&self, key: &str) -> (u16, usize) {
        let slot: u16 = redis::cmd("CLUSTER")
            .arg("KEYSLOT")
            .arg(key)
            .query_async(&mut self.nodes[0].connect().await)
            .await
            .expect("a slot");
        (slot, usize::from(slot / 5_462))
    }
}

async fn run(node: &RedisServer, command: &redis::Cmd) {
    let done: Result<redis::Value, _> = command.query_async(&mut node.connect().await).await;
    done.expect("the cluster's node obeys");
}

/// Waits until all of them say that these are the cluster.
async fn agree(nodes: &[RedisServer]) {
    let known = format!("cluster_known_nodes:{}", nodes.len());
    let sharing = format!("cluster_size:{}", nodes.len());
    let wanted = [
        "cluster_state:ok",
        "cluster_slots_ok:16384",
        &known,
        &sharing,
    ];
    let agreed = async {
        for node in nodes {
            let mut connection = node.connect().await;
            while !reports(&mut connection, &wanted).await {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), agreed)
        .await
        .expect("the cluster's nodes agree");
}

async fn reports(connection: &mut redis::aio::MultiplexedConnection, wanted: &[&str]) -> bool {
    let report: String = redis::cmd("CLUSTER")
        .arg("INFO")
        .query_async(connection)
        .await
        .expect("the cluster's node reports");
    wanted.iter().all(|line| report.contains(line))
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of the loopback address that nobody listens on now, and neither on the one 10,000 above it, on
/// which the nodes of a cluster talk. Both are below those that the kernel gives to connections: no
/// connection of another test takes them while a server is away.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Other suites that run on the machine begin elsewhere.
    let begin = std::process::id().wrapping_mul(101);
    (0..10_000)
        .map(|_| begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .filter_map(|place| u16::try_from(10_000 + place).ok())
        .find(|port| is_free(*port) && is_free(port + 10_000))
        .expect("a free port")
}
