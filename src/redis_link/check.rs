//! Whether a server is fit to hold codes and jobs.

use redis::{ErrorKind, FromRedisValue, Value};

use super::{LinkError, RedisLink};

/// The oldest server that has every command the scripts use, and RESP3.
const OLDEST_VERSION: (u32, u32) = (6, 2);

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

impl RedisLink {
    /// Checks at start that the servers answer, are new enough and never evict keys. What a server
    /// does not tell is a warning in the log.
    pub async fn check(&self) -> Result<(), CheckError> {
        self.ping().await?;
        let answer = match self.query::<Value>(&redis::cmd("INFO")).await {
            Ok(answer) => answer,
            Err(LinkError::Failed(error)) if matches!(error.kind(), ErrorKind::Server(_)) => {
                warn_of_unknown_policy();
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
            match String::from_redis_value(report) {
                Ok(report) => check_report(&report)?,
                Err(_) => warn_of_unknown_policy(),
            }
        }
        Ok(())
    }
}

fn warn_of_unknown_policy() {
    tracing::warn!(
        "Redis does not tell its eviction policy, so it was not checked; `maxmemory-policy` must be `noeviction`"
    );
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
            warn_of_unknown_policy();
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
}
