//! What servers are set to do with a write before they acknowledge it.

use std::collections::HashMap;

use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::{Cmd, ErrorKind, FromRedisValue, Value};

use super::{Connection, LinkError, RedisLink};

/// What becomes of a write that was acknowledged, from nothing known to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DurabilityLevel {
    /// The server does not tell.
    Unknown,
    /// It is in memory: there is no append-only file.
    Memory,
    /// It is in the append-only file when the kernel comes to it (`appendfsync no`).
    Kernel,
    /// It is on disk within about a second (`appendfsync everysec`).
    EverySecond,
    /// It is on disk.
    Always,
}

/// The least that any node promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// What it promises.
    pub level: DurabilityLevel,
    /// The node that promises no more than that.
    pub node: String,
}

impl DurabilityLevel {
    /// The word for it in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Memory => "memory",
            Self::Kernel => "kernel",
            Self::EverySecond => "everysec",
            Self::Always => "always",
        }
    }

    /// As the answer to `CONFIG GET append*` tells.
    fn of_config(settings: &HashMap<String, String>) -> Self {
        let setting = |name: &str| settings.get(name).map(String::as_str);
        match (setting("appendonly"), setting("appendfsync")) {
            (Some("no"), _) => Self::Memory,
            (Some("yes"), Some("no")) => Self::Kernel,
            (Some("yes"), Some("everysec")) => Self::EverySecond,
            (Some("yes"), Some("always")) => Self::Always,
            _ => Self::Unknown,
        }
    }

    /// As `INFO persistence` tells, which does not say when the file is synced.
    fn of_info(report: &str) -> Self {
        let is_off = |line: &str| line.trim() == "aof_enabled:0";
        if report.lines().any(is_off) {
            Self::Memory
        } else {
            Self::Unknown
        }
    }
}

impl RedisLink {
    /// Asks every primary what it does with writes now; settings can change while a server runs.
    pub async fn durability(&self) -> Result<Durability, LinkError> {
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg("append*");
        let read = |answer| {
            let settings = HashMap::<String, String>::from_redis_value(answer);
            settings.map_or(DurabilityLevel::Unknown, |known| {
                DurabilityLevel::of_config(&known)
            })
        };
        let told: Vec<Durability> = match self.ask_primaries(&config).await {
            Ok(answers) => levels(answers, read),
            Err(error) if is_forbidden(&error) => {
                let mut info = redis::cmd("INFO");
                info.arg("persistence");
                match self.ask_primaries(&info).await {
                    Ok(answers) => levels(answers, |answer| {
                        let report = String::from_redis_value(answer);
                        report.map_or(DurabilityLevel::Unknown, |text| {
                            DurabilityLevel::of_info(&text)
                        })
                    }),
                    Err(error) if is_forbidden(&error) => Vec::new(),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let least = told.into_iter().min_by_key(|node| node.level);
        Ok(least.unwrap_or_else(|| Durability {
            level: DurabilityLevel::Unknown,
            node: self.servers.to_string(),
        }))
    }

    /// The answer of every primary, each with its name.
    async fn ask_primaries(&self, command: &Cmd) -> Result<Vec<(String, Value)>, LinkError> {
        let Connection::Cluster(connection) = &self.connection else {
            let answer = self.query::<Value>(command).await?;
            return Ok(vec![(self.servers.to_string(), answer)]);
        };
        let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let mut connection = connection.clone();
        let asked = connection.route_command(command.clone(), primaries);
        let answer = tokio::time::timeout(self.deadline, asked).await;
        let Value::Map(nodes) = self.read::<Value>(answer)? else {
            return Err(LinkError::Nonsense("no answer of each node".to_owned()));
        };
        let named = |(name, answer)| {
            let name = String::from_redis_value(name).unwrap_or_default();
            (name, answer)
        };
        Ok(nodes.into_iter().map(named).collect())
    }
}

fn levels(
    answers: Vec<(String, Value)>,
    read: impl Fn(Value) -> DurabilityLevel,
) -> Vec<Durability> {
    let told = answers.into_iter().map(|(node, answer)| Durability {
        level: read(answer),
        node,
    });
    told.collect()
}

/// The server refused the command itself, as it does to users without the right and to everybody
/// when a provider has taken the command away.
fn is_forbidden(error: &LinkError) -> bool {
    matches!(error, LinkError::Failed(cause) if matches!(cause.kind(), ErrorKind::Server(_) | ErrorKind::Extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_what_both_settings_come_to() {
        for (appendonly, appendfsync, level) in [
            ("yes", "always", DurabilityLevel::Always),
            ("yes", "everysec", DurabilityLevel::EverySecond),
            ("yes", "no", DurabilityLevel::Kernel),
            ("no", "always", DurabilityLevel::Memory),
            ("yes", "sometimes", DurabilityLevel::Unknown),
        ] {
            let settings = [("appendonly", appendonly), ("appendfsync", appendfsync)];
            let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(DurabilityLevel::of_config(&settings.into()), level);
        }
        let nothing = HashMap::new();
        assert_eq!(
            DurabilityLevel::of_config(&nothing),
            DurabilityLevel::Unknown
        );
    }

    #[test]
    fn a_report_tells_that_there_is_no_file_and_no_more() {
        for (report, level) in [
            (
                "# Persistence\r\naof_enabled:0\r\n",
                DurabilityLevel::Memory,
            ),
            (
                "# Persistence\r\naof_enabled:1\r\n",
                DurabilityLevel::Unknown,
            ),
            ("", DurabilityLevel::Unknown),
        ] {
            assert_eq!(DurabilityLevel::of_info(report), level);
        }
    }
}
