//! What is wrong with the settings: each finding names the setting and where its value came from.
//! No finding ever holds a value, since values can be secrets.

use std::fmt;
use std::path::PathBuf;

/// Where the value of a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The compiled-in defaults.
    Default,
    /// The settings file.
    File {
        /// Path of the file as it was given.
        path: PathBuf,
        /// Line of the value.
        line: usize,
    },
    /// A variable of the environment, by its name.
    Variable(String),
    /// A flag of the command line.
    Flag,
    /// The file that a `_file` setting names, by that setting's name.
    SecretFile(String),
    /// A credential that the service manager hands over, by its name.
    Credential(String),
    /// Development mode, which chooses its own transport and sender.
    Development,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, .. } => {
                write!(formatter, "{}", path.display().to_string().escape_debug())
            }
            Self::Variable(name) => write!(formatter, "{}", name.escape_debug()),
            Self::Flag => formatter.write_str("flag"),
            Self::SecretFile(setting) => write!(formatter, "file of {setting}"),
            Self::Credential(name) => write!(formatter, "credential {name}"),
            Self::Development => formatter.write_str("development mode"),
        }
    }
}

/// One thing that is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Dotted name of the setting, or the flag or file that is at fault.
    pub setting: String,
    /// Where the value came from, if there is one.
    pub origin: Option<Origin>,
    /// What is wrong and a hint, without the value.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`", self.setting.escape_debug())?;
        match &self.origin {
            None => {}
            Some(Origin::Default) => formatter.write_str(" (default)")?,
            Some(Origin::Flag) => formatter.write_str(" from a flag")?,
            Some(Origin::Development) => formatter.write_str(" in development mode")?,
            Some(Origin::SecretFile(setting)) => {
                write!(formatter, " from the file of `{setting}`")?;
            }
            Some(Origin::Credential(_)) => {
                formatter.write_str(" from the credential of that name")?;
            }
            Some(origin @ Origin::File { line, .. }) => {
                write!(formatter, " from `{origin}` line {line}")?;
            }
            Some(origin @ Origin::Variable(_)) => write!(formatter, " from `{origin}`")?,
        }
        write!(formatter, ": {}", self.message)
    }
}

/// All findings of one load, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Whether the settings are usable.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many findings there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The findings one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// Whether one of the findings is about this setting.
    pub fn concern(&self, setting: &str) -> bool {
        self.0.iter().any(|finding| finding.setting == setting)
    }

    /// Add a finding.
    pub fn add(
        &mut self,
        setting: impl Into<String>,
        origin: Option<Origin>,
        message: impl Into<String>,
    ) {
        self.0.push(Finding {
            setting: setting.into(),
            origin,
            message: message.into(),
        });
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}
