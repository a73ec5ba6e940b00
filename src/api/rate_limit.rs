//! A client's own limits over HTTP: the fields of draft-ietf-httpapi-ratelimit-headers. They
//! tell how the client's own bucket stands, and nothing of an address or of the networks around it.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::Api;
use super::client::Client;
use super::problem::{Problem, whole_seconds};
use crate::otp::client_budget::ClientLimit;
use crate::store::{ClientBuckets, Quota};

/// The limits, in a structured list: name, `q` (how many) and `w` (in how many seconds).
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// How they stand, in a structured list: name, `r` (how many remain) and `t` (in how many seconds
/// there is one more).
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

impl Api {
    /// The buckets that a client counts in; none where its limits do not count.
    pub(super) fn buckets(&self, client: &Client) -> Option<ClientBuckets> {
        self.policy.limits_of_clients()?;
        let address = client.address?;
        Some(ClientBuckets::of(&self.keys, address))
    }
}

/// Tells a client that was served how it stands.
pub fn write(headers: &mut HeaderMap, quotas: &[Quota]) {
    headers.extend(fields(quotas, |_quota| true));
}

impl Problem {
    /// Tells a client whose request failed how it stands.
    pub fn with_standing(self, quotas: &[Quota]) -> Self {
        self.with_headers(fields(quotas, |_quota| true))
    }

    /// 429: the client has had its share. `t` is told of what is spent only, so that none is later
    /// than `Retry-After`.
    pub fn client_refused(wait: Duration, quotas: &[Quota]) -> Self {
        let is_spent = |quota: &Quota| quota.remaining == 0;
        let spent = quotas.iter().filter(|quota| is_spent(quota));
        let latest = spent.map(|quota| quota.more_in).max().unwrap_or_default();
        Self::client_limit_reached(whole_seconds(wait.max(latest)))
            .with_headers(fields(quotas, is_spent))
    }
}

fn fields(quotas: &[Quota], tells_time: impl Fn(&Quota) -> bool) -> Vec<(HeaderName, HeaderValue)> {
    if quotas.is_empty() {
        return Vec::new();
    }
    let policy = quotas.iter().map(|quota| {
        let window = quota.limit.window().as_secs();
        format!("\"{}\";q={};w={window}", name(quota.limit), quota.most)
    });
    let standing = quotas.iter().map(|quota| {
        let item = format!("\"{}\";r={}", name(quota.limit), quota.remaining);
        if quota.more_in.is_zero() || !tells_time(quota) {
            return item;
        }
        format!("{item};t={}", whole_seconds(quota.more_in))
    });
    vec![
        (RATE_LIMIT_POLICY, list(policy)),
        (RATE_LIMIT, list(standing)),
    ]
}

fn list(items: impl Iterator<Item = String>) -> HeaderValue {
    let text = items.collect::<Vec<_>>().join(", ");
    HeaderValue::from_str(&text).expect("names and numbers are ASCII")
}

fn name(limit: ClientLimit) -> &'static str {
    match limit {
        ClientLimit::GeneratesIn10Minutes => "generate-10m",
        ClientLimit::GeneratesInAnHour => "generate-1h",
        ClientLimit::AddressesInAnHour => "addresses-1h",
        ClientLimit::FailuresInAnHour => "verify-failures-1h",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(limit: ClientLimit, remaining: u32, more_in: Duration) -> Quota {
        Quota {
            limit,
            most: 10,
            remaining,
            more_in,
        }
    }

    fn header<'a>(problem: &'a Problem, name: &HeaderName) -> &'a str {
        let found = problem.headers().iter().find(|(each, _)| each == name);
        found.unwrap().1.to_str().unwrap()
    }

    #[test]
    fn a_standing_is_written_as_structured_lists() {
        let quotas = [
            quota(
                ClientLimit::GeneratesIn10Minutes,
                9,
                Duration::from_millis(1),
            ),
            quota(ClientLimit::GeneratesInAnHour, 10, Duration::ZERO),
        ];
        let mut headers = HeaderMap::new();
        write(&mut headers, &quotas);
        assert_eq!(
            headers[RATE_LIMIT_POLICY],
            "\"generate-10m\";q=10;w=600, \"generate-1h\";q=10;w=3600"
        );
        assert_eq!(
            headers[RATE_LIMIT],
            "\"generate-10m\";r=9;t=1, \"generate-1h\";r=10"
        );
    }

    #[test]
    fn whom_nobody_counts_is_told_nothing() {
        let mut headers = HeaderMap::new();
        write(&mut headers, &[]);
        assert!(headers.is_empty());
    }

    #[test]
    fn no_time_in_a_refusal_is_later_than_the_wait() {
        let quotas = [
            quota(
                ClientLimit::GeneratesIn10Minutes,
                0,
                Duration::from_secs(60),
            ),
            quota(
                ClientLimit::GeneratesInAnHour,
                3,
                Duration::from_secs(3_000),
            ),
            quota(ClientLimit::AddressesInAnHour, 0, Duration::from_secs(900)),
        ];
        let problem = Problem::client_refused(Duration::from_millis(60_001), &quotas);
        assert_eq!(
            header(&problem, &RATE_LIMIT),
            "\"generate-10m\";r=0;t=60, \"generate-1h\";r=3, \"addresses-1h\";r=0;t=900"
        );
        let retry_after = axum::http::header::RETRY_AFTER;
        assert_eq!(header(&problem, &retry_after), "900");
        let problem = Problem::client_refused(Duration::from_millis(900_001), &quotas);
        assert_eq!(header(&problem, &retry_after), "901");
    }
}
