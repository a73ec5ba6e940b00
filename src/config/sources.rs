//! Where settings are read from, and the only place of the program that reads the environment. What is
//! read here is turned into settings elsewhere, without touching files or the environment again.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::finding::Findings;
use super::layers::{VARIABLE_PREFIX, merge};
use super::secret_files::SecretFiles;

/// The settings file that is read, if it is there, when none is named.
pub const DEFAULT_FILE: &str = "otpost.toml";

/// Where systemd puts the credentials of a unit.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Nothing of ours is longer; it keeps a wrong path such as `/dev/zero` from filling the memory.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Which parts of the service this process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// API and worker.
    #[default]
    All,
    /// Takes requests, sends no mail.
    Api,
    /// Sends mail, takes no requests.
    Worker,
}

impl Role {
    /// Whether this process sends mail.
    pub fn mails(self) -> bool {
        self != Self::Api
    }

    /// Whether this process takes requests.
    pub fn answers(self) -> bool {
        self != Self::Worker
    }

    /// The role as it is written on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let roles = [Self::All, Self::Api, Self::Worker];
        roles
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or("must be all, api or worker")
    }
}

/// Everything that settings are made from. Holds secrets, hence no Debug.
#[derive(Default)]
pub struct Sources {
    /// Path and text of the settings file.
    pub file: Option<(PathBuf, String)>,
    /// Variables of the environment; those that do not begin with `OTPOST__` are passed over.
    pub environment: Vec<(String, String)>,
    /// Dotted name and value of settings given as flags; `("dev", "true")` is `--dev`.
    pub flags: Vec<(String, String)>,
    /// Which parts of the service the process is to run.
    pub role: Role,
    /// Secrets that stand in files of their own.
    pub secrets: SecretFiles,
}

impl Sources {
    /// Read the environment, the settings file (a named one must exist, `otpost.toml` may), the files
    /// with secrets that these name and the credentials that a service manager hands over.
    pub fn read(
        config_path: Option<PathBuf>,
        role: Role,
        flags: Vec<(String, String)>,
    ) -> Result<Self, Findings> {
        let mut findings = Findings::default();
        let file = read_settings_file(config_path, &mut findings);
        let environment = read_environment(&mut findings);
        let credentials = credentials_directory();
        let mut sources = Self {
            file,
            environment,
            flags,
            role,
            secrets: SecretFiles::default(),
        };
        if !findings.is_empty() {
            return Err(findings);
        }
        // What is wrong in the layers is reported when they are loaded.
        let values = merge(&sources, &mut Findings::default());
        sources.secrets = SecretFiles::read(&values, credentials.as_deref());
        Ok(sources)
    }
}

fn read_settings_file(
    config_path: Option<PathBuf>,
    findings: &mut Findings,
) -> Option<(PathBuf, String)> {
    let is_named = config_path.is_some();
    let path = config_path.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    match read_text(&path) {
        Ok(text) => Some((path, text)),
        Err(error) if !is_named && error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let message = format!("the settings file cannot be read: {error}");
            findings.add(path.display().to_string(), None, message);
            None
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
fn read_environment(findings: &mut Findings) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name
            .to_str()
            .filter(|name| name.starts_with(VARIABLE_PREFIX))
        else {
            continue;
        };
        match value.into_string() {
            Ok(value) => variables.push((name.to_owned(), value)),
            Err(_value) => findings.add(name, None, "the variable is not valid UTF-8"),
        }
    }
    variables.sort();
    variables
}

fn read_text(path: &Path) -> std::io::Result<String> {
    read_all(&File::open(path)?)
}

/// What stands in a file, if it is of a sensible size.
pub fn read_all(file: &File) -> std::io::Result<String> {
    let mut text = String::new();
    let length = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::new(
            ErrorKind::FileTooLarge,
            "longer than 64 KiB",
        ));
    }
    Ok(text)
}
