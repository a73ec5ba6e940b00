//! The store's contract on a Redis Cluster of three nodes: the hash tags of the keys suffice, and
//! slots may move.

use std::sync::Arc;
use std::time::Duration;

use otpost::otp::clock::{Clock, UnixMillis};
use otpost::otp::policy::Policy;
use otpost::redis_link::{DEADLINE, RedisLink, Script};
use otpost::store::redis::RedisStore;
use otpost::store::{Admission, Cause, EndState, Ending, OtpStore, StoreError, Verdict};
use tokio::time::Instant;

use super::store_bench::{Backend, Bench, LIMITED, POLICY, Who, other_than};
use crate::support::redis_server::{RedisCluster, RedisServer};

async fn open(cluster: &RedisCluster, bench: &Bench) -> RedisStore {
    open_with(cluster, bench, POLICY).await
}

async fn open_with(cluster: &RedisCluster, bench: &Bench, policy: Policy) -> RedisStore {
    let link = RedisLink::connect(&cluster.target(), DEADLINE).await;
    let link = link.unwrap();
    link.check().await.unwrap();
    let clock: Arc<dyn Clock> = Arc::clone(&bench.clock) as Arc<dyn Clock>;
    RedisStore::with_clock(link, policy, clock)
}

async fn wrong_then_right(bench: &Bench, store: &RedisStore, who: Who) {
    let mailed = bench.issue(store, who, "job").await;
    let wrong = other_than(&[&mailed.code]);
    assert_eq!(
        bench.verify(store, who, &wrong).await,
        Verdict::Incorrect(Cause::Wrong)
    );
    assert_eq!(
        bench.verify(store, who, &mailed.code).await,
        Verdict::Correct
    );
    assert_eq!(
        bench.verify(store, who, &mailed.code).await,
        Verdict::Incorrect(Cause::NoLiveCode)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_holds_the_whole_contract() {
    let cluster = RedisCluster::start().await;
    let bench = Bench::open(Backend::Sqlite).await;
    let store = open(&cluster, &bench).await;
    store.ping().await.unwrap();
    let mut used = [false; 3];
    for number in 0..20 {
        let who = bench.who(&format!("{number}@example.org"), "");
        let (_, place) = cluster.owner(&format!("{{{}}}", who.limit)).await;
        used[place] = true;
        wrong_then_right(&bench, &store, who).await;
        let id = format!("request-{number}");
        let ending = Ending {
            state: EndState::Sent,
            requested_at: UnixMillis(1),
            ended_at: UnixMillis(2),
        };
        store.finish(&id, ending).await.unwrap();
        assert_eq!(store.ending(&id).await.unwrap(), Some(ending));
        assert_eq!(store.count_unconfirmed(&id).await.unwrap(), 1);
    }
    assert_eq!(used, [true; 3]);
    store.attest(&bench.keys.marks()).await.unwrap();
    assert!(
        store
            .attest(&super::store_bench::keys(2).marks())
            .await
            .is_err()
    );
}

/// Record and budget are two keys of one script, which a cluster takes only from one slot.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_counted_on_every_node() {
    let cluster = RedisCluster::start().await;
    let bench = Bench::open(Backend::Sqlite).await;
    let store = open_with(&cluster, &bench, LIMITED).await;
    let mut used = [false; 3];
    for number in 0..20 {
        let who = bench.who(&format!("{number}@example.org"), "");
        let (_, place) = cluster.owner(&format!("{{{}}}", who.limit)).await;
        used[place] = true;
        let mail = who.mail();
        assert_eq!(
            store.admit(&mail).await.unwrap().admission,
            Admission::Granted
        );
        let again = store.admit(&mail).await.unwrap().admission;
        assert!(matches!(again, Admission::Refused { .. }), "{again:?}");
        store.give_back(&mail).await.unwrap();
        assert_eq!(
            store.admit(&mail).await.unwrap().admission,
            Admission::Granted
        );
        wrong_then_right(&bench, &store, who).await;
    }
    assert_eq!(used, [true; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_an_error_in_time_and_serves_again_when_it_is_back() {
    let mut cluster = RedisCluster::start().await;
    let bench = Bench::open(Backend::Sqlite).await;
    let (store, ann) = (open(&cluster, &bench).await, bench.ann());
    let mailed = bench.issue(&store, ann, "job").await;
    let (_, place) = cluster.owner(&format!("{{{}}}", ann.limit)).await;
    cluster.nodes[place].kill();
    let begin = Instant::now();
    let typed = bench.typed(ann, &mailed.code);
    let gone = store.verify(&typed).await;
    assert!(matches!(gone, Err(StoreError::Unavailable(_))), "{gone:?}");
    assert!(begin.elapsed() < DEADLINE + Duration::from_millis(500));

    cluster.nodes[place].restart().await;
    let back = async {
        loop {
            if let Ok(verdict) = store.verify(&typed).await {
                return verdict;
            }
        }
    };
    let verdict = tokio::time::timeout(Duration::from_secs(5), back).await;
    assert_eq!(verdict.unwrap().verdict, Verdict::Correct);
}

async fn set_slot(node: &RedisServer, slot: u16, state: &str, other: &str) {
    let () = redis::cmd("CLUSTER")
        .arg("SETSLOT")
        .arg(slot)
        .arg(state)
        .arg(other)
        .query_async(&mut node.connect().await)
        .await
        .unwrap();
}

async fn name(node: &RedisServer) -> String {
    redis::cmd("CLUSTER")
        .arg("MYID")
        .query_async(&mut node.connect().await)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_to_another_node_is_followed() {
    let cluster = RedisCluster::start().await;
    let bench = Bench::open(Backend::Sqlite).await;
    let (store, ann) = (open(&cluster, &bench).await, bench.ann());
    let (slot, place) = cluster.owner(&format!("{{{}}}", ann.limit)).await;
    let (from, to) = (&cluster.nodes[place], &cluster.nodes[(place + 1) % 3]);
    let (from_name, to_name) = (name(from).await, name(to).await);

    // On the move: the old node sends askers for keys that it does not have to the new one.
    set_slot(to, slot, "IMPORTING", &from_name).await;
    set_slot(from, slot, "MIGRATING", &to_name).await;
    wrong_then_right(&bench, &store, ann).await;

    // Moved: the old node knows the new owner.
    set_slot(to, slot, "NODE", &to_name).await;
    set_slot(from, slot, "NODE", &to_name).await;
    wrong_then_right(&bench, &store, ann).await;
}

/// A script with two keys, one of which is on its way while the other is not yet anywhere, has to
/// wait until the whole slot has moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_whose_keys_are_on_the_way_waits_for_them() {
    let cluster = RedisCluster::start().await;
    let link = RedisLink::connect(&cluster.target(), DEADLINE)
        .await
        .unwrap();
    let script = Script::new("return redis.call('GET', KEYS[1])");
    let keys = ["{tag}:1", "{tag}:2"];
    let (slot, place) = cluster.owner(keys[0]).await;
    let (from, to) = (&cluster.nodes[place], &cluster.nodes[(place + 1) % 3]);
    let (from_name, to_name) = (name(from).await, name(to).await);
    set_slot(to, slot, "IMPORTING", &from_name).await;
    set_slot(from, slot, "MIGRATING", &to_name).await;
    let mut set = redis::cmd("SET");
    set.arg(keys[0]).arg("value");
    let () = link.query(&set).await.unwrap();

    let no_args: [&str; 0] = [];
    let call = async {
        let waiting = link.invoke::<String, _, _>(&script, &keys, &no_args);
        tokio::pin!(waiting);
        let moving = async {
            // The new node has refused the script at least once by then.
            while refusals(to).await == 0 {}
            set_slot(to, slot, "NODE", &to_name).await;
            set_slot(from, slot, "NODE", &to_name).await;
        };
        tokio::join!(waiting, moving).0
    };
    assert_eq!(call.await.unwrap(), "value");
}

async fn refusals(node: &RedisServer) -> u32 {
    let report: String = redis::cmd("INFO")
        .arg("errorstats")
        .query_async(&mut node.connect().await)
        .await
        .unwrap();
    report
        .lines()
        .find_map(|line| line.strip_prefix("errorstat_TRYAGAIN:count="))
        .map_or(0, |count| count.trim().parse().unwrap())
}
