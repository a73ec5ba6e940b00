//! The store's contract on Redis: what callers see while it is gone, and that no call is repeated
//! whose outcome nobody knows.

use std::time::Duration;

use otpost::redis_link::{DEADLINE, RedisLink, RedisServers, RedisTarget};
use otpost::store::redis::RedisStore;
use otpost::store::{Cause, OtpStore, StoreError, Verdict};
use rstest::rstest;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::store_bench::Backend::Redis;
use super::store_bench::{Bench, POLICY, other_than};
use crate::support::proxy::{Cut, Proxy};
use crate::support::redis_server::{RedisServer, free_port};

const SLACK: Duration = Duration::from_millis(500);

#[rstest]
#[case::killed(true)]
#[case::hanging(false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_an_error_in_time_and_serves_again_when_it_is_back(
    #[case] killed: bool,
) {
    let mut bench = Bench::open(Redis).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job").await;
    if killed {
        bench.server_mut().kill();
    } else {
        bench.server().signal("-STOP");
    }
    for _ in 0..2 {
        let begin = Instant::now();
        let (issue, typed) = (bench.request(ann, "job"), bench.typed(ann, "123456"));
        let (issued, verified, ending, ping) = tokio::join!(
            store.issue(&issue),
            store.verify(&typed),
            store.ending("request"),
            store.ping(),
        );
        assert!(begin.elapsed() < DEADLINE + SLACK, "{:?}", begin.elapsed());
        assert!(matches!(issued, Err(StoreError::Unavailable(_))));
        assert!(matches!(verified, Err(StoreError::Unavailable(_))));
        assert!(matches!(ending, Err(StoreError::Unavailable(_))));
        assert!(matches!(ping, Err(StoreError::Unavailable(_))));
    }
    if killed {
        bench.server_mut().restart().await;
    } else {
        bench.server().signal("-CONT");
    }
    let begin = Instant::now();
    let verdict = bench.verify(&*store, ann, &mailed.code).await;
    assert_eq!(verdict, Verdict::Correct);
    assert!(begin.elapsed() < Duration::from_secs(2));
}

/// However long the server is away, and even if nobody calls meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_after_a_long_outage_works() {
    let mut bench = Bench::open(Redis).await;
    let store = bench.store().await;
    store.ping().await.unwrap();
    let port = bench.server().node().port;
    bench.server_mut().kill();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let attempts = async {
        for _ in 0..8 {
            drop(listener.accept().await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(20), attempts)
        .await
        .expect("the link goes on trying to connect");
    drop(listener);
    bench.server_mut().restart().await;
    store.ping().await.unwrap();
}

async fn behind_a_proxy(cluster: bool) -> (RedisServer, Proxy, RedisTarget) {
    let port = free_port();
    let server = if cluster {
        RedisServer::start_as_cluster(port).await
    } else {
        RedisServer::start().await
    };
    let proxy = Proxy::at(port, server.node().port).await;
    let servers = if cluster {
        RedisServers::Cluster(vec![proxy.node()])
    } else {
        RedisServers::Single {
            node: proxy.node(),
            database: 0,
        }
    };
    let target = RedisTarget {
        servers,
        ..server.target()
    };
    (server, proxy, target)
}

/// The server counts the attempt, but its answer is lost. Sent again, it would count twice.
#[rstest]
#[case::one_server(false)]
#[case::a_cluster(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_is_lost_is_an_error_and_was_made_once(#[case] cluster: bool) {
    let (_server, proxy, target) = behind_a_proxy(cluster).await;
    let link = RedisLink::connect(&target, DEADLINE).await.unwrap();
    let store = RedisStore::new(link.clone(), POLICY);
    let bench = Bench::open(super::store_bench::Backend::Sqlite).await;
    let (ann, bob) = (bench.ann(), bench.who("bob@example.org", ""));
    let soon = otpost::otp::clock::UnixMillis(u64::MAX / 2);
    let issued = store.issue(&bench.request_at(ann, "job", soon)).await;
    let mailed = bench.mailed(ann, &issued.unwrap());
    // The server knows the script from here on.
    bench.verify(&store, bob, "123456").await;
    let wrong = bench.typed(ann, &other_than(&[&mailed.code]));

    proxy.cut(0, Cut::AfterAnswer);
    let begin = Instant::now();
    let lost = store.verify(&wrong).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    assert!(begin.elapsed() < DEADLINE + SLACK);

    let back = async {
        while store.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), back)
        .await
        .expect("the link is back within 2 s");
    for _ in 0..4 {
        let counted = store.verify(&wrong).await.unwrap();
        assert_eq!(counted.verdict, Verdict::Incorrect(Cause::Wrong));
    }
    let sixth = store.verify(&wrong).await.unwrap();
    assert_eq!(sixth.verdict, Verdict::Incorrect(Cause::NoLiveCode));
}
