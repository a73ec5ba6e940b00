//! A Redis server of one test's own: started from the `redis-server` binary on a free port, ended
//! with the test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of the loopback address that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("the port").port()
}
