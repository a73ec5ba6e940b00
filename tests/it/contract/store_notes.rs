//! The store's contract: how requests ended, how many mails are unconfirmed, and which keys the
//! data was made with.

use std::time::Duration;

use otpost::otp::clock::UnixMillis;
use otpost::otp::keys::{KeyMarks, KeyRing};
use otpost::store::{AttestError, EndState, Ending};
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn ending(state: EndState) -> Ending {
    Ending {
        state,
        requested_at: UnixMillis(1_790_000_000_000),
        ended_at: UnixMillis(1_790_000_001_234),
    }
}

fn marks(master: u8, previous: &[[u8; 32]], address: u8) -> KeyMarks {
    KeyRing::new(&[master; 32], previous, &[address; 32]).marks()
}

#[rstest]
#[tokio::test]
async fn it_is_known_how_a_request_ended(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(
        EndState::Sent,
        EndState::Undeliverable,
        EndState::Expired,
        EndState::Superseded
    )]
    state: EndState,
) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    assert_eq!(store.ending("request").await.unwrap(), None);
    store.finish("request", ending(state)).await.unwrap();
    assert_eq!(store.ending("request").await.unwrap(), Some(ending(state)));
    assert_eq!(store.ending("other").await.unwrap(), None);
}

#[rstest]
#[tokio::test]
async fn the_first_ending_of_a_request_stands_unless_its_mail_is_sent_after_all(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    let [refused, late, sent] =
        [EndState::Undeliverable, EndState::Expired, EndState::Sent].map(ending);
    for (next, expected) in [
        (refused, refused),
        (late, refused),
        (sent, sent),
        (late, sent),
    ] {
        store.finish("request", next).await.unwrap();
        assert_eq!(store.ending("request").await.unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn the_embedded_store_forgets_an_ending_after_a_day() {
    let bench = Bench::open(Sqlite).await;
    let store = bench.store().await;
    store
        .finish("request", ending(EndState::Sent))
        .await
        .unwrap();
    store.count_unconfirmed("request").await.unwrap();
    bench.clock.advance(Duration::from_millis(86_399_999));
    assert!(store.ending("request").await.unwrap().is_some());
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(store.ending("request").await.unwrap(), None);
    assert_eq!(store.count_unconfirmed("request").await.unwrap(), 1);
    assert_eq!(store.ending("request").await.unwrap(), None);
}

#[tokio::test]
async fn redis_forgets_an_ending_after_a_day() {
    let bench = Bench::open(Redis).await;
    let store = bench.store().await;
    store
        .finish("request", ending(EndState::Sent))
        .await
        .unwrap();
    let ttl_ms: u64 = redis::cmd("PTTL")
        .arg("otpost:{r:request}")
        .query_async(&mut bench.server().connect().await)
        .await
        .unwrap();
    assert!((86_390_000..=86_400_000).contains(&ttl_ms), "{ttl_ms}");
}

#[rstest]
#[tokio::test]
async fn unconfirmed_mails_are_counted_by_job(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    assert_eq!(store.count_unconfirmed("job 1").await.unwrap(), 1);
    assert_eq!(store.count_unconfirmed("job 1").await.unwrap(), 2);
    assert_eq!(store.count_unconfirmed("job 2").await.unwrap(), 1);
    assert_eq!(store.ending("job 1").await.unwrap(), None);
    store.finish("job 1", ending(EndState::Sent)).await.unwrap();
    assert_eq!(store.count_unconfirmed("job 1").await.unwrap(), 3);
    assert!(store.ending("job 1").await.unwrap().is_some());
}

#[rstest]
#[tokio::test]
async fn names_with_braces_and_spaces_are_names(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    for name in ["a}:u", "{", "a b", "'; --", ""] {
        store.finish(name, ending(EndState::Sent)).await.unwrap();
        assert!(store.ending(name).await.unwrap().is_some(), "{name}");
        assert_eq!(store.count_unconfirmed(name).await.unwrap(), 1, "{name}");
    }
}

#[rstest]
#[tokio::test]
async fn the_same_keys_are_accepted_again(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    for _ in 0..3 {
        store.attest(&marks(1, &[], 9)).await.unwrap();
    }
}

#[rstest]
#[tokio::test]
async fn another_address_key_is_refused(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    store.attest(&marks(1, &[], 9)).await.unwrap();
    assert!(matches!(
        store.attest(&marks(1, &[], 8)).await,
        Err(AttestError::OtherAddressKey)
    ));
    store.attest(&marks(1, &[], 9)).await.unwrap();
}

#[rstest]
#[tokio::test]
async fn an_unlisted_master_key_is_refused_and_not_noted(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    store.attest(&marks(1, &[], 9)).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(
            store.attest(&marks(2, &[], 9)).await,
            Err(AttestError::OtherMasterKey)
        ));
    }
}

#[rstest]
#[tokio::test]
async fn a_master_key_is_rotated_in_two_steps(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    store.attest(&marks(1, &[], 9)).await.unwrap();
    store.attest(&marks(1, &[[2; 32]], 9)).await.unwrap();
    store.attest(&marks(2, &[[1; 32]], 9)).await.unwrap();
    store.attest(&marks(2, &[], 9)).await.unwrap();
}

#[rstest]
#[tokio::test]
async fn a_key_that_nobody_uses_is_forgotten_after_forty_days(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    store.attest(&marks(1, &[[2; 32]], 9)).await.unwrap();
    bench.clock.advance(39 * DAY);
    store.attest(&marks(2, &[], 9)).await.unwrap();
    bench.clock.advance(DAY);
    assert!(matches!(
        store.attest(&marks(1, &[], 9)).await,
        Err(AttestError::OtherMasterKey)
    ));
    assert!(matches!(
        store.attest(&marks(2, &[], 8)).await,
        Err(AttestError::OtherAddressKey)
    ));
    bench.clock.advance(39 * DAY);
    store.attest(&marks(3, &[], 8)).await.unwrap();
}
