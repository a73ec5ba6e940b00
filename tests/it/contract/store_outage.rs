//! The store's contract on Redis: what callers see while it is gone, and that no call is repeated
//! whose outcome nobody knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use otpost::redis_link::{DEADLINE, RedisLink, RedisNode, RedisServers, RedisTarget};
use otpost::store::redis::RedisStore;
use otpost::store::{Cause, OtpStore, StoreError, Verdict};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::store_bench::Backend::Redis;
use super::store_bench::{Bench, POLICY, other_than};
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

/// Stands between a client and a server and loses one answer, with its connection, on demand.
struct Loser {
    port: u16,
    lose: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Loser {
    async fn before(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let lose = Arc::new(AtomicBool::new(false));
        let losing = Arc::clone(&lose);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                connections.spawn(pass(client, server, Arc::clone(&losing)));
            }
        });
        Self {
            port,
            lose,
            _tasks: tasks,
        }
    }

    fn lose_the_next_answer(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, server: TcpStream, lose: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = tokio::io::copy(&mut from_client, &mut to_server);
    let answering = async {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            if lose.swap(false, Ordering::SeqCst) {
                return;
            }
            if to_client.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = asking => {}
        () = answering => {}
    }
}

async fn behind_a_loser(cluster: bool) -> (RedisServer, Loser, RedisTarget) {
    let port = free_port();
    let announced = port.to_string();
    let server = if cluster {
        let options = ["--cluster-enabled", "yes", "--cluster-announce-port"];
        let server = RedisServer::start_with(&[&options[..], &[&announced]].concat()).await;
        let all_slots: Vec<u16> = (0..16_384).collect();
        let mut connection = server.connect().await;
        let () = redis::cmd("CLUSTER")
            .arg("ADDSLOTS")
            .arg(all_slots)
            .query_async(&mut connection)
            .await
            .unwrap();
        let ok = async {
            loop {
                let report: String = redis::cmd("CLUSTER")
                    .arg("INFO")
                    .query_async(&mut connection)
                    .await
                    .unwrap();
                if report.contains("cluster_state:ok") {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ok)
            .await
            .expect("the cluster of one node is ready");
        server
    } else {
        RedisServer::start().await
    };
    let loser = Loser::before(port, server.node().port).await;
    let node = RedisNode {
        host: "127.0.0.1".to_owned(),
        port: loser.port,
    };
    let servers = if cluster {
        RedisServers::Cluster(vec![node])
    } else {
        RedisServers::Single { node, database: 0 }
    };
    let target = RedisTarget {
        servers,
        ..server.target()
    };
    (server, loser, target)
}

/// The server counts the attempt, but its answer is lost. Sent again, it would count twice.
#[rstest]
#[case::one_server(false)]
#[case::a_cluster(true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_is_lost_is_an_error_and_was_made_once(#[case] cluster: bool) {
    let (_server, loser, target) = behind_a_loser(cluster).await;
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

    loser.lose_the_next_answer();
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
