//! The store's contract: what simultaneous calls spend of one client. Every caller has its own task,
//! the callers share ten connections, and a barrier lets all of them go at once.

use otpost::store::{Admission, AdmitRequest, Verdict, VerifyRequest};
use rstest::rstest;

use super::store_bench::Backend::{Cluster, Redis, Sqlite};
use super::store_bench::{ALL_LIMITED, Backend, Bench};
use super::store_callers::{at_once, stores};

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_simultaneous_requests_of_one_client_give_exactly_its_ten(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let stores = stores(&bench).await;
    for round in 0..10 {
        let client = bench.client(&format!("2001:db8:{round}::1"));
        let requests = (0..50).map(|number| AdmitRequest {
            client: Some(client),
            ..bench
                .who(&format!("{round}-{number}@example.org"), "")
                .mail()
        });
        let answers = at_once(&stores, requests.collect(), |store, request| async move {
            store.admit(&request).await.unwrap().admission
        })
        .await;
        let granted = answers.iter().filter(|each| **each == Admission::Granted);
        assert_eq!(granted.count(), 10, "round {round}: {answers:?}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_simultaneous_wrong_codes_of_one_client_are_looked_at_exactly_twenty_times(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let stores = stores(&bench).await;
    for round in 0..10 {
        let client = bench.client(&format!("192.0.{round}.1"));
        let requests = (0..50).map(|number| VerifyRequest {
            client: Some(client),
            ..bench.typed(bench.who(&format!("{number}@example.org"), ""), "000000")
        });
        let verdicts = at_once(&stores, requests.collect(), |store, request| async move {
            store.verify(&request).await.unwrap().verdict
        })
        .await;
        let is_refused = |each: &&Verdict| matches!(each, Verdict::Refused { .. });
        let refused = verdicts.iter().filter(is_refused).count();
        assert_eq!(refused, 30, "round {round}: {verdicts:?}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_race_for_one_address_are_charged_for_the_mails_that_it_allows(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_swift(backend, ALL_LIMITED).await;
    let stores = stores(&bench).await;
    let requests = (0..50).map(|number| AdmitRequest {
        client: Some(bench.client(&format!("192.0.2.{number}"))),
        ..bench.who("ann@example.org", &number.to_string()).mail()
    });
    let granted = at_once(&stores, requests.collect(), |store, request| async move {
        u32::from(store.admit(&request).await.unwrap().admission == Admission::Granted)
    })
    .await;
    assert_eq!(granted.iter().sum::<u32>(), 5);
    let mut charged = 0;
    for number in 0..50 {
        let request = AdmitRequest {
            client: Some(bench.client(&format!("192.0.2.{number}"))),
            ..bench.ann().mail()
        };
        let admitted = stores[0].admit(&request).await.unwrap();
        charged += 10 - admitted.client.unwrap()[0].remaining;
    }
    assert_eq!(charged, 5);
}
