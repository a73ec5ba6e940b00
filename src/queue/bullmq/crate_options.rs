//! What the BullMQ crate is told: where Redis is, what is kept, how its workers behave.

use std::time::Duration;

use bullmq::options::{RedisConnectionOptions, TlsCerts};
use bullmq::types::{KeepJobs, RemoveOnFinish};
use bullmq::{JobOptions, QueueOptions, WorkerOptions};
use secrecy::ExposeSecret;

use crate::config::is_loopback_host;
use crate::queue::QueueLimits;
use crate::redis_link::{ConnectError, Encryption, RedisServers, RedisTarget};

/// Workers of one process if Redis is another machine: each fetches one job a round trip.
const REMOTE_WORKERS: usize = 4;
/// A job whose worker died runs again, however often that happens; age ends a job, not bad luck.
const STALLED_COUNT: u32 = u32::MAX;
/// Bounds how long a worker that has nothing to do takes to close; whole seconds only.
const DRAIN_DELAY: Duration = Duration::from_secs(1);
/// The pause after a fetch that failed; the crate's own would be 15 s.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The way to Redis in the crate's terms.
pub fn connection(target: &RedisTarget) -> Result<RedisConnectionOptions, ConnectError> {
    let mut options = match &target.servers {
        RedisServers::Single { node, database } => RedisConnectionOptions::new()
            .host(&node.host)
            .port(node.port)
            .db(*database),
        RedisServers::Cluster(_) => RedisConnectionOptions::new().cluster_nodes(target.urls()),
    };
    options.username.clone_from(&target.user);
    options.password = target
        .password
        .as_ref()
        .map(|password| password.expose_secret().to_owned());
    options.tls = target.encryption != Encryption::None;
    options.tls_certs = target.authorities()?.map(|root_cert| TlsCerts {
        root_cert: Some(root_cert),
        ..TlsCerts::default()
    });
    Ok(options)
}

/// How many jobs each worker runs at once: one worker beside Redis, several if it is far away.
pub fn concurrencies(target: &RedisTarget, concurrency: usize) -> Vec<usize> {
    let nodes = match &target.servers {
        RedisServers::Single { node, .. } => std::slice::from_ref(node),
        RedisServers::Cluster(nodes) => nodes,
    };
    let is_near = nodes.iter().all(|node| is_loopback_host(&node.host));
    let workers = if is_near { 1 } else { REMOTE_WORKERS };
    (0..workers)
        .map(|worker| (concurrency + worker) / workers)
        .filter(|share| *share > 0)
        .collect()
}

/// The options of the queue, and those of its jobs that any other BullMQ worker obeys, too.
pub fn queue(
    connection: &RedisConnectionOptions,
    prefix: &str,
    limits: &QueueLimits,
) -> QueueOptions {
    let jobs = JobOptions::new()
        .remove_on_complete(completed(limits))
        .remove_on_fail(failed(limits));
    QueueOptions::new()
        .connection(connection.clone())
        .prefix(prefix)
        .default_job_options(jobs)
}

/// The options of a worker. What it keeps holds for jobs whose producer did not say.
pub fn worker(
    connection: &RedisConnectionOptions,
    prefix: &str,
    limits: &QueueLimits,
) -> WorkerOptions {
    WorkerOptions::new()
        .connection(connection.clone())
        .prefix(prefix)
        // Renewal would hold up the start and the end of all jobs for a round trip per lease; an
        // attempt is shorter than its lease instead.
        .lock_duration(limits.lease)
        .skip_lock_renewal()
        // The crate skips every second check, so that a dead worker's job is found at most half a
        // lease after its lease ended.
        .stalled_interval((limits.lease / 4).max(Duration::from_millis(1)))
        .max_stalled_count(STALLED_COUNT)
        .drain_delay(DRAIN_DELAY)
        .run_retry_delay(RETRY_DELAY)
        .remove_on_complete(completed(limits))
        .remove_on_fail(failed(limits))
}

fn completed(limits: &QueueLimits) -> RemoveOnFinish {
    if limits.keep_completed.is_zero() {
        return RemoveOnFinish::Bool(true);
    }
    RemoveOnFinish::Options(KeepJobs {
        age: Some(whole_seconds(limits.keep_completed)),
        count: None,
        limit: None,
    })
}

fn failed(limits: &QueueLimits) -> RemoveOnFinish {
    RemoveOnFinish::Options(KeepJobs {
        age: Some(whole_seconds(limits.keep_failed)),
        count: usize::try_from(limits.keep_failed_count).ok(),
        limit: None,
    })
}

/// BullMQ counts ages in seconds.
fn whole_seconds(span: Duration) -> u64 {
    span.as_millis()
        .div_ceil(1_000)
        .try_into()
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_link::RedisNode;

    fn target(host: &str) -> RedisTarget {
        RedisTarget {
            servers: RedisServers::Single {
                node: RedisNode {
                    host: host.to_owned(),
                    port: 6380,
                },
                database: 2,
            },
            user: Some("app".to_owned()),
            password: Some("p@ss".into()),
            encryption: Encryption::None,
        }
    }

    #[test]
    fn a_far_redis_gets_several_workers_that_share_the_concurrency() {
        assert_eq!(concurrencies(&target("127.0.0.1"), 50), [50]);
        assert_eq!(concurrencies(&target("::1"), 50), [50]);
        assert_eq!(concurrencies(&target("localhost"), 1), [1]);
        assert_eq!(
            concurrencies(&target("redis.example"), 50),
            [12, 12, 13, 13]
        );
        assert_eq!(concurrencies(&target("192.0.2.7"), 2), [1, 1]);
    }

    #[test]
    fn the_crate_goes_where_the_link_goes() {
        let plain = connection(&target("::1")).unwrap();
        assert_eq!(plain.effective_url(), "redis://app:p%40ss@[::1]:6380/2");
        let encrypted = RedisTarget {
            encryption: Encryption::Public,
            ..target("redis.example")
        };
        let encrypted = connection(&encrypted).unwrap();
        assert_eq!(
            encrypted.effective_url(),
            "rediss://app:p%40ss@redis.example:6380/2"
        );
    }

    #[test]
    fn ages_are_whole_seconds_and_never_shorter_than_asked() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(86_400)), 86_400);
    }
}
