//! The built `otpost` as a process of its own, in a folder of its own, with an empty environment.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::redis_server::free_port;

/// Longer than anything that a test waits for may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A killed worker's job is done by another within this time, as the README says.
pub const RESCUE: Duration = Duration::from_secs(20);

/// How a process is started; it can be started again on the same folder.
pub struct Setup {
    folder: Arc<TempDir>,
    settings: Vec<(String, String)>,
    arguments: Vec<String>,
    /// The soft and the hard limit of open files, if they are not those of the test.
    open_files: Option<(u32, u32)>,
    runs: u32,
}

/// A running process.
pub struct Process {
    child: Child,
    api: SocketAddr,
    ops: SocketAddr,
    client: Client,
    output: [PathBuf; 2],
    _folder: Arc<TempDir>,
}

impl Setup {
    /// A process without any settings but its listeners, so in development mode.
    pub fn bare() -> Self {
        Self {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            settings: Vec::new(),
            arguments: Vec::new(),
            open_files: None,
            runs: 0,
        }
    }

    /// A process that sends its mails to this SMTP server.
    pub fn mailing_to(smtp_url: &str) -> Self {
        Self::bare()
            .with("mail.smtp.url", smtp_url)
            .with("mail.from", "otpost <no-reply@example.com>")
    }

    /// Adds a setting.
    pub fn with(self, name: &str, value: &str) -> Self {
        let mut setup = self.without(name);
        setup.settings.push((variable(name), value.to_owned()));
        setup
    }

    /// Takes a setting out.
    pub fn without(mut self, name: &str) -> Self {
        let variable = variable(name);
        self.settings.retain(|(known, _)| *known != variable);
        self
    }

    /// Adds a setting whose value stands in a file of its own, which only its owner may read.
    pub fn with_secret_file(self, name: &str, value: &str) -> Self {
        let path = self.folder.path().join(name);
        std::fs::write(&path, format!("{value}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        self.with(&format!("{name}_file"), path.to_str().unwrap())
    }

    /// Adds a variable that is no setting.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds Redis and the keys that it needs.
    pub fn on_redis(self, url: &str) -> Self {
        self.with("store.url", url)
            .with(
                "keys.master",
                "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            )
            .with(
                "keys.address",
                "ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoM=",
            )
    }

    /// Lets the process serve in one role.
    pub fn in_role(mut self, role: &str) -> Self {
        self.arguments = ["serve", "--role", role].map(str::to_owned).into();
        self
    }

    /// Lets the process open so many files, and so many if it asks for more.
    pub fn with_open_files(mut self, soft: u32, hard: u32) -> Self {
        self.open_files = Some((soft, hard));
        self
    }

    /// The folder that the process works in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> std::process::Output {
        let output = self.command().args(arguments).output();
        tokio::time::timeout(PATIENCE, output)
            .await
            .expect("the command ends")
            .unwrap()
    }

    /// Starts a command whose output nobody reads.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command();
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Starts a command; what it says on standard error is to be read line by line.
    pub fn spawn_heard(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStderr>>) {
        let mut command = self.command();
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        (child, BufReader::new(stderr).lines())
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(&mut self) -> Process {
        self.runs += 1;
        let listen = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (api, ops) = (listen(), listen());
        let output =
            ["out", "err"].map(|name| self.folder.path().join(format!("{name}.{}", self.runs)));
        let [out, err] = output
            .clone()
            .map(|path| std::fs::File::create(path).unwrap());
        let child = self
            .command()
            .args(&self.arguments)
            .env("OTPOST__HTTP__LISTEN", api.to_string())
            .env("OTPOST__OPS__LISTEN", ops.to_string())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        let mut process = Process {
            child,
            api,
            ops,
            client: Client::new(),
            output,
            _folder: self.folder.clone(),
        };
        tokio::time::timeout(PATIENCE, process.ready())
            .await
            .expect("the process becomes ready");
        process
    }

    fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_otpost");
        let mut command = Command::new(program);
        if let Some((soft, hard)) = self.open_files {
            let limited =
                format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$0\" \"$@\"");
            command = Command::new("/bin/sh");
            command.args(["-c", &limited, program]);
        }
        command
            .env_clear()
            .envs(self.settings.iter().cloned())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

impl Process {
    /// Asks for a code and expects the request to be taken; returns the id.
    pub async fn generate(&self, email: &str) -> String {
        let answer = self.post("/otp/generate", &json!({ "email": email })).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        let body: Value = answer.json().await.unwrap();
        body["id"].as_str().unwrap().to_owned()
    }

    /// Hands in a code.
    pub async fn verify(&self, email: &str, code: &str) -> (StatusCode, Value) {
        let answer = self
            .post("/otp/verify", &json!({ "email": email, "otp": code }))
            .await;
        (answer.status(), answer.json().await.unwrap())
    }

    /// Starts a request to the API that nothing is added to.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.api))
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let url = format!("http://{}{path}", self.api);
        self.client.post(url).json(body).send().await.unwrap()
    }

    /// Gets from the API.
    pub async fn get(&self, path: &str) -> Response {
        self.client
            .get(format!("http://{}{path}", self.api))
            .send()
            .await
            .unwrap()
    }

    /// Gets from the operations listener.
    pub async fn ask_ops(&self, path: &str) -> Response {
        self.client
            .get(format!("http://{}{path}", self.ops))
            .send()
            .await
            .unwrap()
    }

    /// Where the API is.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where the operations listener is.
    pub fn ops(&self) -> SocketAddr {
        self.ops
    }

    /// Waits until the state of a request is this one.
    pub async fn wait_for_state(&self, id: &str, expected: &str) {
        let reached = async {
            loop {
                let answer = self.get(&format!("/otp/requests/{id}")).await;
                let body: Value = answer.json().await.unwrap();
                if body["state"] == expected {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("the request comes to its state");
    }

    /// The newest mail in the mailbox of development mode.
    pub async fn newest_mail(&self) -> Value {
        let arrived = async {
            loop {
                let mails: Value = self
                    .get("/dev/mailbox/messages")
                    .await
                    .json()
                    .await
                    .unwrap();
                if let Some(mail) = mails.get(0) {
                    break mail.clone();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, arrived)
            .await
            .expect("a mail arrives")
    }

    /// What `/proc` tells about the process to whoever may look: its environment and its command
    /// line.
    pub fn surroundings(&self) -> Vec<u8> {
        let id = self.child.id().expect("the process runs");
        let read = |name| std::fs::read(format!("/proc/{id}/{name}")).unwrap();
        [read("environ"), read("cmdline")].concat()
    }

    /// Ends the process as a crash would.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks the process to end, and returns how it did and all that it wrote.
    pub async fn stop(mut self) -> (ExitStatus, String) {
        let status = terminate(&mut self.child).await;
        let written = self
            .output
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap());
        (status, written.collect())
    }

    async fn ready(&mut self) {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let said = std::fs::read_to_string(&self.output[1]).unwrap();
                panic!("the process ended with {status}: {said}");
            }
            let answer = self
                .client
                .get(format!("http://{}/readyz", self.ops))
                .send()
                .await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The variable of a setting.
fn variable(name: &str) -> String {
    format!("OTPOST__{}", name.replace('.', "__").to_uppercase())
}

/// Sends SIGTERM and waits for the end.
pub async fn terminate(child: &mut Child) -> ExitStatus {
    let id = child.id().expect("the process runs").to_string();
    let signalled = Command::new("kill")
        .args(["-TERM", &id])
        .status()
        .await
        .unwrap();
    assert!(signalled.success());
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    ended.expect("the process ends").unwrap()
}
