//! What tells of abuse: refusals by limits, connections beyond the room, guesses, the breaker.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Telemetry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limit {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    reason: &'static str,
}

/// The metrics of abuse.
pub(super) struct Abuse {
    refusals: Family<Limit, Counter>,
    guess_mass: Counter<f64, AtomicU64>,
    breaker_open: Gauge,
    connections: Family<Refusal, Counter>,
}

impl Abuse {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let refusals = Family::default();
        registry.register(
            "limit_refusals",
            "Requests that a limit refused and mails that one held up, by limit",
            refusals.clone(),
        );
        let guess_mass = Counter::default();
        registry.register(
            "otp_guess_mass",
            "Codes that would have been guessed by chance if all wrong codes were guesses",
            guess_mass.clone(),
        );
        let breaker_open = Gauge::default();
        registry.register(
            "breaker_open",
            "1 while wrong codes all over the service are so many that it steps up new codes",
            breaker_open.clone(),
        );
        let connections = Family::default();
        registry.register(
            "http_connections_refused",
            "Connections closed at once since there was no room for them, by reason",
            connections.clone(),
        );
        Self {
            refusals,
            guess_mass,
            breaker_open,
            connections,
        }
    }
}

impl Telemetry {
    /// A limit refused a request, or held up a mail; `limit` is whose it is: `address`, `client`,
    /// `domain` or `global`.
    pub fn limit_refused(&self, limit: &'static str) {
        self.abuse.refusals.get_or_create(&Limit { limit }).inc();
    }

    /// A listener had no room for a connection; `reason` is whose places are taken: `all` or
    /// `one_peer`.
    pub fn connection_refused(&self, reason: &'static str) {
        self.abuse
            .connections
            .get_or_create(&Refusal { reason })
            .inc();
    }

    /// A wrong code was compared with live ones; `mass` is the probability that a guess had met one.
    pub fn guessed(&self, mass: f64) {
        self.abuse.guess_mass.inc_by(mass);
    }

    /// The breaker opened or closed at so many unresolved failures in a day, of which so many are
    /// borne.
    pub fn breaker_turned(&self, is_open: bool, failures: u64, borne: u64) {
        self.abuse.breaker_open.set(i64::from(is_open));
        if is_open {
            tracing::warn!(
                failures,
                borne,
                "wrong codes all over the service: the breaker opened"
            );
        } else {
            tracing::warn!(
                failures,
                borne,
                "wrong codes are as usual again: the breaker closed"
            );
        }
    }
}
