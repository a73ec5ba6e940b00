//! The store's contract: what one client may do, and that mailboxes and clients are charged together
//! or not at all. It runs on a cluster, too, which keeps the two apart.

use std::time::Duration;

use otpost::otp::policy::{ClientLimits, Policy};
use otpost::store::{
    Admission, AdmitRequest, Admitted, Cause, Check, ClientBuckets, OtpStore, Verdict,
    VerifyRequest,
};
use rstest::rstest;

use super::store_bench::Backend::{Cluster, Redis, Sqlite};
use super::store_bench::{ALL_LIMITED, Backend, Bench, CLIENT_LIMITS, LIMITED, Who, other_than};
use super::store_client_data::stored_buckets;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// Only the number of addresses is limited.
const FEW_ADDRESSES: Policy = Policy {
    client_limits: Some(ClientLimits {
        generate_per_10m: 1_000,
        generate_per_hour: 1_000,
        ..CLIENT_LIMITS
    }),
    ..LIMITED
};

pub fn asks(client: ClientBuckets, who: Who) -> AdmitRequest {
    AdmitRequest {
        client: Some(client),
        ..who.mail()
    }
}

pub async fn ask(store: &dyn OtpStore, client: ClientBuckets, who: Who) -> Admitted {
    store.admit(&asks(client, who)).await.unwrap()
}

pub async fn is_granted(store: &dyn OtpStore, client: ClientBuckets, who: Who) -> bool {
    ask(store, client, who).await.admission == Admission::Granted
}

pub fn typed_by(bench: &Bench, client: ClientBuckets, who: Who, code: &str) -> VerifyRequest {
    VerifyRequest {
        client: Some(client),
        ..bench.typed(who, code)
    }
}

pub async fn types(
    bench: &Bench,
    store: &dyn OtpStore,
    client: ClientBuckets,
    who: Who,
    code: &str,
) -> Check {
    let request = typed_by(bench, client, who, code);
    store.verify(&request).await.unwrap()
}

/// What remains of each limit of asking.
pub fn remaining(admitted: &Admitted) -> [u32; 3] {
    admitted.client.unwrap().map(|quota| quota.remaining)
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_client_against_a_thousand_addresses_is_stopped_by_its_own_bucket(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, FEW_ADDRESSES).await;
    let store = bench.store().await;
    let client = bench.client("192.0.2.1");
    let mut granted = 0;
    for number in 0..1_000 {
        let who = bench.who(&format!("{number}@example.org"), "");
        granted += u32::from(is_granted(&*store, client, who).await);
    }
    assert_eq!(granted, 10);
    // The refusals cost the addresses nothing.
    let (last, other) = (bench.who("999@example.org", ""), bench.client("192.0.2.2"));
    for number in 0..5 {
        let who = bench.who("999@example.org", &number.to_string());
        assert!(is_granted(&*store, other, who).await);
    }
    let refused = ask(&*store, client, last).await;
    let wait = Admission::ClientRefused { retry_after: HOUR };
    assert_eq!(refused.admission, wait, "its own limit is what it hears of");
    let known = bench.who("0@example.org", "again");
    assert!(is_granted(&*store, client, known).await);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_against_one_address_are_stopped_by_its_budget_which_costs_them_nothing(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let store = bench.store().await;
    let mut granted = 0;
    for number in 0..1_000_u32 {
        let client = bench.client(&format!("10.0.{}.{}", number / 250, number % 250));
        let who = bench.who("ann@example.org", &number.to_string());
        let admitted = ask(&*store, client, who).await;
        let is_granted = admitted.admission == Admission::Granted;
        granted += u32::from(is_granted);
        let left = if is_granted { [9, 29, 9] } else { [10, 30, 10] };
        assert_eq!(remaining(&admitted), left);
    }
    assert_eq!(granted, 5);
    assert_eq!(stored_buckets(&bench).await, 5);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn forty_spellings_from_two_hundred_networks_get_no_more_mails_than_one_address(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let store = bench.store().await;
    let mut granted = 0;
    for number in 0..1_000_u32 {
        let local = ["ann.lee", "annlee", "a.nnlee", "ANNLEE", "an.n.lee"][number as usize % 5];
        let tag = number % 4;
        let domain = ["gmail.com", "googlemail.com"][(number / 20) as usize % 2];
        let client = bench.client(&format!("2001:db8:{:x}::1", number % 200));
        let who = bench.who(&format!("{local}+{tag}@{domain}"), &number.to_string());
        granted += u32::from(is_granted(&*store, client, who).await);
    }
    assert_eq!(granted, 5);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_across_the_edge_of_a_window_never_exceeds_the_limit(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, client) = (bench.store().await, bench.client("192.0.2.1"));
    let mut granted = [0; 2];
    bench.clock.advance(Duration::from_secs(599));
    for (burst, counted) in granted.iter_mut().enumerate() {
        for number in 0..10 {
            let who = bench.who(&format!("{number}@example.org"), &burst.to_string());
            let may = number < 8 || burst > 0;
            *counted += u32::from(may && is_granted(&*store, client, who).await);
        }
        bench.clock.advance(Duration::from_secs(2));
    }
    assert_eq!(granted, [8, 2]);
    let who = bench.who("0@example.org", "later");
    let refused = ask(&*store, client, who).await.admission;
    let retry_after = Duration::from_secs(596);
    assert_eq!(refused, Admission::ClientRefused { retry_after });
    bench.clock.advance(retry_after);
    assert!(is_granted(&*store, client, who).await);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_failed_verify_is_the_clients_whatever_its_cause(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, client) = (bench.store().await, bench.client("2001:db8::1"));
    let (ann, nobody) = (bench.ann(), bench.who("nobody@example.org", ""));
    let mut left = Vec::new();
    let mut causes = Vec::new();
    for number in 0..20 {
        // The client's share of the failures of one mailbox is 5.
        let who = if number % 2 == 0 { nobody } else { ann };
        let code = bench
            .issue(&*store, ann, &format!("job {number}"))
            .await
            .code;
        let check = types(&bench, &*store, client, who, &other_than(&[&code])).await;
        let quota = check.client.unwrap();
        assert_eq!((quota.most, quota.more_in), (20, HOUR));
        left.push(quota.remaining);
        causes.push(check.verdict);
    }
    assert_eq!(left, (0..20).rev().collect::<Vec<_>>());
    for cause in [Cause::Wrong, Cause::NoLiveCode, Cause::BudgetSpent] {
        assert!(causes.contains(&Verdict::Incorrect(cause)), "{cause:?}");
    }
    assert!(!causes.contains(&Verdict::Correct));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_had_its_failures_is_refused_before_any_code_is_looked_at(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, client) = (bench.store().await, bench.client("192.0.2.1"));
    for number in 0..20 {
        let nobody = bench.who(&format!("{number}@example.org"), "");
        types(&bench, &*store, client, nobody, "000000").await;
    }
    let ann = bench.ann();
    let mailed = bench.issue(&*store, ann, "job").await;
    let wrong = other_than(&[&mailed.code]);
    let refused = Verdict::Refused { retry_after: HOUR };
    for code in [&wrong, &wrong, &wrong, &wrong, &wrong, &mailed.code] {
        let check = types(&bench, &*store, client, ann, code).await;
        assert_eq!(check.verdict, refused);
        assert_eq!(check.client.unwrap().remaining, 0);
    }
    // Five attempts would have ended the code.
    let other = bench.client("192.0.2.2");
    let check = types(&bench, &*store, other, ann, &mailed.code).await;
    assert_eq!(check.verdict, Verdict::Correct);
    bench.clock.advance(HOUR);
    let check = types(&bench, &*store, client, ann, &wrong).await;
    assert_eq!(check.verdict, Verdict::Incorrect(Cause::NoLiveCode));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_success_gives_back_what_it_took(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
    #[values("192.0.2.1", "2001:db8::1")] address: &str,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, client, ann) = (bench.store().await, bench.client(address), bench.ann());
    for round in 0..3_u32 {
        let admitted = ask(&*store, client, ann).await;
        assert_eq!(admitted.admission, Admission::Granted);
        assert_eq!(remaining(&admitted), [9, 29, 9], "round {round}");
        let mailed = bench.issue(&*store, ann, &format!("job {round}")).await;
        let right = types(&bench, &*store, client, ann, &mailed.code).await;
        assert_eq!(right.verdict, Verdict::Correct);
        assert_eq!(right.client.unwrap().remaining, 20);
        assert_eq!(right.client.unwrap().more_in, Duration::ZERO);
        assert_eq!(stored_buckets(&bench).await, 0, "nothing is charged");
        bench.clock.advance(MINUTE);
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_success_gives_back_neither_failures_nor_other_requests(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, client) = (bench.store().await, bench.client("2001:db8::1"));
    let (ann, bob) = (bench.ann(), bench.who("bob@example.org", ""));
    for who in [ann, bob] {
        assert!(is_granted(&*store, client, who).await);
    }
    bench.clock.advance(MINUTE);
    assert!(is_granted(&*store, client, ann).await);
    let mailed = bench.issue(&*store, ann, "job").await;
    types(&bench, &*store, client, ann, &other_than(&[&mailed.code])).await;
    let right = types(&bench, &*store, client, ann, &mailed.code).await;
    assert_eq!(
        (right.verdict, right.client.unwrap().remaining),
        (Verdict::Correct, 19)
    );
    let next = ask(&*store, client, bench.who("cid@example.org", "")).await;
    assert_eq!(remaining(&next), [7, 27, 7]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_given_back_is_given_back_to_the_client_too(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, client, ann) = (
        bench.store().await,
        bench.client("2001:db8::1"),
        bench.ann(),
    );
    for _ in 0..100 {
        let admitted = ask(&*store, client, ann).await;
        assert_eq!(admitted.admission, Admission::Granted);
        assert_eq!(remaining(&admitted), [9, 29, 9]);
        store.give_back(&asks(client, ann)).await.unwrap();
    }
    assert_eq!(stored_buckets(&bench).await, 0);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_client_sees_nothing_of_another(#[values(Sqlite, Redis, Cluster)] backend: Backend) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let store = bench.store().await;
    let (busy, idle) = (bench.client("2001:db8::1"), bench.client("2001:db8:0:1::1"));
    for number in 0..10 {
        let who = bench.who(&format!("{number}@example.org"), "");
        assert!(is_granted(&*store, busy, who).await);
        types(&bench, &*store, busy, who, "000000").await;
    }
    // They share a /56 and a mailbox.
    let who = bench.who("0@example.org", "other");
    let admitted = ask(&*store, idle, who).await;
    assert_eq!(admitted.admission, Admission::Granted);
    let told = admitted
        .client
        .unwrap()
        .map(|quota| (quota.remaining, quota.more_in));
    assert_eq!(told, [(9, 10 * MINUTE), (29, HOUR), (9, HOUR)]);
    let check = types(&bench, &*store, idle, who, "000000").await;
    assert_eq!(check.client.unwrap().remaining, 19);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_counted_whose_limits_do_not_count(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let (store, off) = (bench.store().await, bench.store_with(LIMITED).await);
    let client = bench.client("192.0.2.1");
    for number in 0..40 {
        let who = bench.who(&format!("{number}@example.org"), "");
        let unnamed = store.admit(&who.mail()).await.unwrap();
        assert_eq!(
            (unnamed.admission, unnamed.client),
            (Admission::Granted, None)
        );
        let who = bench.who(&format!("{number}@example.com"), "");
        let admitted = ask(&*off, client, who).await;
        assert_eq!(
            (admitted.admission, admitted.client),
            (Admission::Granted, None)
        );
        let check = types(&bench, &*off, client, who, "000000").await;
        assert_eq!(check.verdict, Verdict::Incorrect(Cause::NoLiveCode));
        assert_eq!(check.client, None);
    }
    assert_eq!(stored_buckets(&bench).await, 0);
}
