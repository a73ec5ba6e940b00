//! The store's contract: which networks count together as one client.

use otpost::otp::policy::{ClientLimits, Policy};
use otpost::store::{Admission, ClientBuckets, Verdict};
use rstest::rstest;

use super::store_bench::Backend::{Cluster, Redis, Sqlite};
use super::store_bench::{ALL_LIMITED, Backend, Bench, CLIENT_LIMITS};
use super::store_client::{ask, is_granted, remaining, types};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn sixteen_64s_of_one_60_share_the_bucket_of_their_56(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let store = bench.store().await;
    let mut granted = 0;
    for number in 0..160_u32 {
        let client = bench.client(&format!("2001:db8:1:{:x}::1", 0x10 + number % 16));
        let who = bench.who(&format!("{number}@example.org"), "");
        let admitted = ask(&*store, client, who).await;
        granted += u32::from(admitted.admission == Admission::Granted);
        let [in_ten_minutes, ..] = remaining(&admitted);
        assert!(in_ten_minutes >= 8, "only its own bucket is told");
    }
    assert_eq!(granted, 20);
    let beside = bench.client("2001:db8:1:110::1");
    let who = bench.who("ann@example.org", "");
    assert!(is_granted(&*store, beside, who).await);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_ipv4_address_mapped_into_ipv6_is_that_ipv4_address(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let store = bench.store().await;
    let spellings = ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"];
    let mut granted = 0;
    for number in 0..30 {
        let client = bench.client(spellings[number % 3]);
        let who = bench.who(&format!("{number}@example.org"), "");
        granted += u32::from(is_granted(&*store, client, who).await);
    }
    assert_eq!(granted, 10);
}

/// Three /64s in each of five /56s of one /48.
fn clients_of_a_48(bench: &Bench) -> Vec<ClientBuckets> {
    let of = |number: u32| (0x100 * (number % 5)) + number / 5;
    (0..15)
        .map(|number| bench.client(&format!("2001:db8:1:{:x}::1", of(number))))
        .collect()
}

/// No /64 and no /56 comes to its own limit: it is the /48 that stops them.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn five_56s_of_one_48_ask_for_four_times_as_many_codes_as_one_64(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, clients) = (bench.store().await, clients_of_a_48(&bench));
    let mut granted = 0;
    for number in 0..60 {
        // So many mailboxes that none comes to its limit, and so few that no limit of theirs is met.
        let who = bench.who(&format!("{}@example.org", number % 12), &number.to_string());
        granted += u32::from(is_granted(&*store, clients[number % 15], who).await);
    }
    assert_eq!(granted, 4 * CLIENT_LIMITS.generate_per_10m);
    let beside = bench.client("2001:db8:2::1");
    assert!(is_granted(&*store, beside, bench.ann()).await);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn five_56s_of_one_48_ask_for_four_times_as_many_addresses_as_one_64(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let client_limits = ClientLimits {
        distinct_addresses_per_hour: 5,
        ..CLIENT_LIMITS
    };
    let policy = Policy {
        client_limits: Some(client_limits),
        ..ALL_LIMITED
    };
    let bench = Bench::open_swift(backend, policy).await;
    let (store, clients) = (bench.store().await, clients_of_a_48(&bench));
    let mut granted = 0;
    for number in 0..30 {
        let who = bench.who(&format!("{number}@example.org"), "");
        granted += u32::from(is_granted(&*store, clients[number % 15], who).await);
    }
    assert_eq!(granted, 4 * client_limits.distinct_addresses_per_hour);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn five_56s_of_one_48_fail_four_times_as_often_as_one_64(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, clients, ann) = (bench.store().await, clients_of_a_48(&bench), bench.ann());
    let mut looked_at = 0;
    for number in 0..90 {
        let check = types(&bench, &*store, clients[number % 15], ann, "000000").await;
        looked_at += u32::from(!matches!(check.verdict, Verdict::Refused { .. }));
    }
    assert_eq!(looked_at, 4 * CLIENT_LIMITS.verify_failures_per_hour);
}
