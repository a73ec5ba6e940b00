//! What otpost tells about itself: one function an event, which counts and, where somebody will
//! want to read it, writes a line. The registry is a value handed out by `app`, nothing global.
//!
//! Labels are closed sets. No function takes a code, an address or a whole request id: callers
//! hand in masked ids and the pseudonyms of addresses.

mod abuse;
mod log;

use std::fmt::{Display, Write as _};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use log::{LogFormat, start_log};

use abuse::Abuse;

/// Seconds; from a store that answers at once to an attempt at its deadline.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labelled {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Depth {
    state: &'static str,
}

/// All metrics of a process.
pub struct Telemetry {
    registry: Registry,
    requests: Family<Request, Counter>,
    request_seconds: Family<Route, Histogram>,
    attempts: Family<Labelled, Counter>,
    attempt_seconds: Family<Labelled, Histogram>,
    endings: Family<Labelled, Counter>,
    verifies: Family<Labelled, Counter>,
    abuse: Abuse,
    unconfirmed: Counter,
    depth: Family<Depth, Gauge<u64, AtomicU64>>,
    durability: Family<Level, Gauge<u64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Level {
    level: &'static str,
}

/// How many jobs stand where, for the gauge.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueDepth {
    /// Wait to run now.
    pub waiting: u64,
    /// Run.
    pub active: u64,
    /// Wait for their time.
    pub delayed: u64,
    /// Failed and kept.
    pub failed: u64,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

fn durability(registry: &mut Registry) -> Family<Level, Gauge<u64, AtomicU64>> {
    let durability = Family::default();
    registry.register(
        "store_durability",
        "What the store promises about acknowledged writes: 1 at its level",
        durability.clone(),
    );
    durability
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("otpost");
        let requests = Family::default();
        registry.register(
            "http_requests",
            "HTTP requests by route and status",
            requests.clone(),
        );
        let request_seconds = Family::new_with_constructor(histogram as fn() -> Histogram);
        registry.register(
            "http_request_duration_seconds",
            "Time from the head of a request to its answer",
            request_seconds.clone(),
        );
        let attempts = Family::default();
        registry.register(
            "job_attempts",
            "Attempts at jobs by outcome",
            attempts.clone(),
        );
        let attempt_seconds = Family::new_with_constructor(histogram as fn() -> Histogram);
        registry.register(
            "job_attempt_duration_seconds",
            "Time that an attempt at a job took",
            attempt_seconds.clone(),
        );
        let endings = Family::default();
        registry.register(
            "otp_requests_ended",
            "Requests by how they ended",
            endings.clone(),
        );
        let verifies = Family::default();
        registry.register(
            "otp_verifies",
            "Verified codes by outcome",
            verifies.clone(),
        );
        let abuse = Abuse::register(&mut registry);
        let unconfirmed = Counter::default();
        registry.register(
            "mails_unconfirmed",
            "Mails whose acceptance by the mail server is unknown",
            unconfirmed.clone(),
        );
        let depth = Family::default();
        registry.register("queue_jobs", "Jobs on the queue by state", depth.clone());
        let durability = durability(&mut registry);
        Self {
            registry,
            requests,
            request_seconds,
            attempts,
            attempt_seconds,
            endings,
            verifies,
            abuse,
            unconfirmed,
            depth,
            durability,
        }
    }
}

impl Telemetry {
    /// The process serves, under limits that leave this chance of guessing a code.
    pub fn started(&self, guess_bound: &str) {
        tracing::info!(guess_bound, "otpost serves");
    }

    /// A request was answered. `route` is the matched path or `unmatched`, never the raw path.
    pub fn request_answered(&self, route: &str, status: u16, took: Duration) {
        self.requests
            .get_or_create(&Request {
                route: route.to_owned(),
                status,
            })
            .inc();
        self.request_seconds
            .get_or_create(&Route {
                route: route.to_owned(),
            })
            .observe(took.as_secs_f64());
        tracing::debug!(
            http.route = route,
            http.status = status,
            took_ms = took.as_millis(),
            "request answered"
        );
    }

    /// A request failed inside; `request` is the HTTP request id that the answer's `instance` shows.
    pub fn request_failed(&self, request: &str, error: &dyn std::error::Error) {
        tracing::error!(
            http.request = request,
            error = chain(error),
            "request failed"
        );
    }

    /// An attempt at a job ended as `done`, `later`, `retry` or `fail`.
    pub fn attempt_ended(&self, outcome: &'static str, took: Duration) {
        let labels = Labelled { outcome };
        self.attempts.get_or_create(&labels).inc();
        self.attempt_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// An attempt failed and the job will run again.
    pub fn job_retried(&self, masked_job: &str, attempt: u32, reason: &str, after: Duration) {
        tracing::warn!(
            job.id = masked_job,
            job.attempt = attempt,
            reason,
            after_ms = after.as_millis(),
            "job will be tried again"
        );
    }

    /// A job has to wait and will run again; of these there may be thousands a minute.
    pub fn job_delayed(&self, masked_job: &str, attempt: u32, reason: &str, after: Duration) {
        tracing::debug!(
            job.id = masked_job,
            job.attempt = attempt,
            reason,
            after_ms = after.as_millis(),
            "job has to wait"
        );
    }

    /// A job failed for good.
    pub fn job_failed(&self, masked_job: &str, attempt: u32, reason: &str) {
        tracing::error!(
            job.id = masked_job,
            job.attempt = attempt,
            reason,
            "job failed"
        );
    }

    /// A request came to its end.
    pub fn request_ended(&self, state: &'static str, masked_job: &str, pseudonym: &str) {
        self.endings
            .get_or_create(&Labelled { outcome: state })
            .inc();
        tracing::info!(
            job.id = masked_job,
            address = pseudonym,
            state,
            "request came to its end"
        );
    }

    /// The mail server may or may not have taken a mail.
    pub fn mail_unconfirmed(&self, masked_job: &str) {
        self.unconfirmed.inc();
        tracing::warn!(
            job.id = masked_job,
            "the mail server did not confirm the mail in time"
        );
    }

    /// A code was checked; `outcome` is `correct`, `repeated`, `key_reused`, `wrong`, `no_live_code`
    /// or `budget_spent`.
    pub fn verified(&self, outcome: &'static str) {
        self.verifies.get_or_create(&Labelled { outcome }).inc();
    }

    /// The queue was counted.
    pub fn queue_counted(&self, depth: QueueDepth) {
        let counts = [
            ("waiting", depth.waiting),
            ("active", depth.active),
            ("delayed", depth.delayed),
            ("failed", depth.failed),
        ];
        for (state, count) in counts {
            self.depth.get_or_create(&Depth { state }).set(count);
        }
    }

    /// The store told what it promises about acknowledged writes.
    pub fn durability_read(&self, level: &'static str) {
        // Only the level that was read last stands.
        self.durability.clear();
        self.durability.get_or_create(&Level { level }).set(1);
    }

    /// A part that otpost leans on failed outside of a request: the store, the queue, a task.
    pub fn part_failed(&self, part: &str, error: &dyn Display) {
        tracing::warn!(part, error = %error, "a part failed; it is tried again");
    }

    /// The process may open so few files that it takes fewer connections than it would.
    pub fn files_are_few(&self, files: usize, connections: usize) {
        tracing::warn!(
            files,
            connections,
            "the limit of open files (`ulimit -Hn`, `LimitNOFILE=`) is low: so few connections at once"
        );
    }

    /// The metrics in the text form of OpenMetrics.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a `String` can't fail; an empty answer would be noticed by any scraper.
            text.clear();
        }
        text
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_counted_under_its_labels() {
        let telemetry = Telemetry::default();
        telemetry.request_answered("/otp/generate", 202, Duration::from_millis(3));
        telemetry.attempt_ended("done", Duration::from_millis(3));
        telemetry.request_ended("sent", "rabcd***", "0123456789ab");
        telemetry.mail_unconfirmed("rabcd***");
        telemetry.verified("wrong");
        telemetry.guessed(0.25);
        telemetry.guessed(0.25);
        telemetry.limit_refused("address");
        telemetry.limit_refused("domain");
        telemetry.connection_refused("one_peer");
        telemetry.breaker_turned(true, 501, 500);
        telemetry.queue_counted(QueueDepth {
            waiting: 3,
            ..QueueDepth::default()
        });
        let text = telemetry.encode();
        for line in [
            "otpost_http_requests_total{route=\"/otp/generate\",status=\"202\"} 1",
            "otpost_http_request_duration_seconds_count{route=\"/otp/generate\"} 1",
            "otpost_job_attempts_total{outcome=\"done\"} 1",
            "otpost_job_attempt_duration_seconds_count{outcome=\"done\"} 1",
            "otpost_otp_requests_ended_total{outcome=\"sent\"} 1",
            "otpost_otp_verifies_total{outcome=\"wrong\"} 1",
            "otpost_otp_guess_mass_total 0.5",
            "otpost_limit_refusals_total{limit=\"address\"} 1",
            "otpost_limit_refusals_total{limit=\"domain\"} 1",
            "otpost_http_connections_refused_total{reason=\"one_peer\"} 1",
            "otpost_breaker_open 1",
            "otpost_mails_unconfirmed_total 1",
            "otpost_queue_jobs{state=\"waiting\"} 3",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn two_processes_in_one_test_do_not_share_counters() {
        let (one, other) = (Telemetry::default(), Telemetry::default());
        one.verified("correct");
        assert!(!other.encode().contains("outcome=\"correct\""));
    }
}
