//! Starts otpost, and Redis where it needs one, on free loopback ports in a new directory, and
//! stops exactly the processes it started.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use data_encoding::BASE64;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::http::Client;
use crate::process::Probe;

/// A process that is not ready by then has failed.
const LONGEST_START: Duration = Duration::from_secs(30);
/// A process that has not ended by then is killed.
const LONGEST_STOP: Duration = Duration::from_secs(20);
/// Between two looks at a starting process; the start-to-ready time is no finer.
const LOOK: Duration = Duration::from_millis(1);

/// Where otpost keeps its codes and jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// In a file.
    Sqlite,
    /// In a Redis of its own.
    Redis,
}

/// What is started.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The otpost binary.
    pub otpost: PathBuf,
    /// The redis-server binary.
    pub redis_server: PathBuf,
}

/// How it is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup<'a> {
    /// When Redis syncs its file; the embedded store does at every commit.
    pub sync: Sync,
    /// Settings of otpost besides those that are always the same.
    pub settings: &'a [(&'a str, &'a str)],
}

/// When Redis syncs its append-only file.
#[derive(Debug, Clone, Copy, Default)]
pub enum Sync {
    /// Once a second.
    #[default]
    EverySecond,
    /// Before it answers a write.
    Always,
}

/// A running otpost with its store.
#[derive(Debug)]
pub struct Target {
    /// The listener of the API.
    pub http: SocketAddr,
    /// From the start of the process to the first 200 of `/readyz`.
    pub ready_after: Duration,
    otpost: Started,
    redis: Option<Started>,
    // Last, since fields are dropped in order: the directory goes after the processes in it.
    _directory: TempDir,
}

impl Target {
    /// Starts otpost on a new store, sending its mail to `smtp`, and waits until it is ready.
    pub async fn start(
        programs: &Programs,
        backend: Backend,
        smtp: SocketAddr,
        setup: Setup<'_>,
    ) -> anyhow::Result<Target> {
        let directory = tempfile::tempdir()?;
        let [http, ops, redis_address] = free_addresses()?;
        let mut command = Command::new(programs.otpost.canonicalize().with_context(|| {
            format!(
                "`{}` is not there; build it first",
                programs.otpost.display()
            )
        })?);
        // Nothing of the caller's settings: neither variables nor a file in the current directory.
        command
            .arg("serve")
            .env_clear()
            .current_dir(directory.path());
        command.env("OTPOST__HTTP__LISTEN", http.to_string());
        command.env("OTPOST__OPS__LISTEN", ops.to_string());
        command.env("OTPOST__MAIL__TRANSPORT", "smtp");
        command.env("OTPOST__MAIL__SMTP__URL", format!("smtp://{smtp}"));
        command.env("OTPOST__MAIL__FROM", "otpost <no-reply@example.com>");
        command.env("OTPOST__LOG__LEVEL", "warn");
        command.envs(setup.settings.iter().copied());
        let mut redis = None;
        match backend {
            Backend::Sqlite => {
                let file = directory.path().join("otpost.db");
                command.env("OTPOST__STORE__URL", format!("sqlite:{}", file.display()));
            }
            Backend::Redis => {
                let program = &programs.redis_server;
                let server = start_redis(program, redis_address, directory.path(), setup.sync);
                redis = Some(server.await?);
                command.env("OTPOST__STORE__URL", format!("redis://{redis_address}"));
                command.env("OTPOST__KEYS__MASTER", random_key()?);
                command.env("OTPOST__KEYS__ADDRESS", random_key()?);
            }
        }
        let started = Instant::now();
        let mut otpost = Started::new("otpost", command, directory.path())?;
        otpost.wait_for(|| is_ready(ops)).await?;
        let ready_after = started.elapsed();
        Ok(Target {
            http,
            ready_after,
            otpost,
            redis,
            _directory: directory,
        })
    }

    /// The processes to watch.
    pub fn probe(&self) -> Probe {
        let redis = self.redis.iter().map(|redis| redis.pid).collect();
        Probe {
            target: vec![self.otpost.pid],
            redis,
        }
    }

    /// Ends otpost, then Redis, with SIGTERM; a process that does not obey is killed and an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let stopped = self.otpost.stop().await;
        if let Some(redis) = &mut self.redis {
            redis.stop().await?;
        }
        stopped
    }
}

/// A process of ours with its log; it is killed if this is dropped before it has ended.
#[derive(Debug)]
struct Started {
    name: &'static str,
    pid: u32,
    child: Child,
    log: PathBuf,
}

impl Started {
    fn new(name: &'static str, mut command: Command, directory: &Path) -> anyhow::Result<Started> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child
            .id()
            .context("a process that has just been started has an id")?;
        Ok(Started {
            name,
            pid,
            child,
            log,
        })
    }

    async fn wait_for<F: Future<Output = bool>>(
        &mut self,
        ready: impl Fn() -> F,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        while !ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.last_words());
            }
            if started.elapsed() > LONGEST_START {
                bail!(
                    "{} is not ready after {LONGEST_START:?}:\n{}",
                    self.name,
                    self.last_words()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("a process id is positive")?;
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} had ended with {status}:\n{}",
                self.name,
                self.last_words()
            );
        }
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        match tokio::time::timeout(LONGEST_STOP, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => bail!(
                "{} ended with {}:\n{}",
                self.name,
                status?,
                self.last_words()
            ),
            Err(_) => {
                self.child.kill().await?;
                bail!(
                    "{} did not end within {LONGEST_STOP:?} of SIGTERM",
                    self.name
                )
            }
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

async fn start_redis(
    program: &Path,
    address: SocketAddr,
    directory: &Path,
    sync: Sync,
) -> anyhow::Result<Started> {
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync"]);
    command.arg(match sync {
        Sync::EverySecond => "everysec",
        Sync::Always => "always",
    });
    command.arg("--dir").arg(directory);
    let mut server = Started::new("redis-server", command, directory)?;
    server.wait_for(|| pongs(address)).await?;
    Ok(server)
}

async fn is_ready(ops: SocketAddr) -> bool {
    let mut client = Client::new(ops, LONGEST_START);
    client
        .get("/readyz")
        .await
        .is_ok_and(|answer| answer.status == 200)
}

async fn pongs(redis: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(redis).await else {
        return false;
    };
    let mut answer = [0; 5];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && answer == *b"+PONG"
}

/// Ports that were free a moment ago, all different: the started processes bind them themselves.
fn free_addresses<const COUNT: usize>() -> std::io::Result<[SocketAddr; COUNT]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    let mut held = Vec::new();
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}

fn random_key() -> std::io::Result<String> {
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(BASE64.encode(&key))
}
