//! What a client and a mailbox are charged with while the node of one of them is gone: on a cluster
//! they may be on two.

use std::time::Duration;

use otpost::redis_link::RedisLink;
use otpost::store::redis::RedisStore;
use otpost::store::{Admission, ClientBuckets, OtpStore, StoreError, VerifyRequest};
use rstest::rstest;

use super::store_bench::{ALL_LIMITED, Backend, Bench, Who};
use super::store_client::{ask, asks, typed_by, types};
use crate::support::redis_server::RedisCluster;

/// How long a caller of the store waits for an answer.
const DEADLINE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// A client and a mailbox on two nodes.
struct Stage {
    bench: Bench,
    cluster: RedisCluster,
    store: RedisStore,
    client: ClientBuckets,
    who: Who,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    Hanging,
}

impl Stage {
    async fn new() -> Self {
        let (bench, cluster) = (
            Bench::open(Backend::Sqlite).await,
            RedisCluster::start().await,
        );
        let link = RedisLink::connect(&cluster.target(), DEADLINE).await;
        let store = RedisStore::with_clock(link.unwrap(), ALL_LIMITED, bench.clock.clone());
        let client = bench.client("192.0.2.1");
        let clients_node = node_of_client(&cluster, client).await;
        let mut number = 0;
        let who = loop {
            let who = bench.who(&format!("{number}@example.org"), "");
            if node_of_mailbox(&cluster, who).await != clients_node {
                break who;
            }
            number += 1;
        };
        Self {
            bench,
            cluster,
            store,
            client,
            who,
        }
    }

    fn lose(&mut self, place: usize, loss: Loss) {
        match loss {
            Loss::Killed => self.cluster.nodes[place].kill(),
            Loss::Hanging => self.cluster.nodes[place].signal("-STOP"),
        }
    }

    /// Waits until every node answers the store again.
    async fn recover(&mut self, place: usize, loss: Loss) {
        match loss {
            Loss::Killed => self.cluster.nodes[place].restart().await,
            Loss::Hanging => self.cluster.nodes[place].signal("-CONT"),
        }
        let back = async {
            while self.store.ping().await.is_err()
                || self.store.verify(&self.unnamed()).await.is_err()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, back)
            .await
            .expect("all nodes answer");
    }

    /// A code that no client is charged with.
    fn unnamed(&self) -> VerifyRequest {
        self.bench.typed(self.who, "000000")
    }
}

async fn node_of_client(cluster: &RedisCluster, client: ClientBuckets) -> usize {
    let group = data_encoding::HEXLOWER.encode(&client.group().0);
    cluster.owner(&format!("{{p:{group}}}")).await.1
}

async fn node_of_mailbox(cluster: &RedisCluster, who: Who) -> usize {
    cluster.owner(&format!("{{{}}}", who.limit)).await.1
}

/// As callers do who wait no longer.
async fn is_unavailable<T>(answer: impl Future<Output = Result<T, StoreError>>) -> bool {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Err(StoreError::Unavailable(_))) | Err(_) => true,
        Ok(_) => false,
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_out_of_reach_costs_its_client_nothing(
    #[values(Loss::Killed, Loss::Hanging)] loss: Loss,
) {
    let mut stage = Stage::new().await;
    let place = node_of_mailbox(&stage.cluster, stage.who).await;
    let (client, who) = (stage.client, stage.who);
    stage.lose(place, loss);
    for _ in 0..2 {
        let typed = typed_by(&stage.bench, client, who, "000000");
        assert!(is_unavailable(stage.store.verify(&typed)).await);
        assert!(is_unavailable(stage.store.admit(&asks(client, who))).await);
    }
    stage.recover(place, loss).await;
    let other = stage.bench.who("other@example.org", "");
    let check = types(&stage.bench, &stage.store, client, other, "000000").await;
    assert_eq!(check.client.unwrap().remaining, 19);
    let admitted = ask(&stage.store, client, other).await;
    let remaining = admitted.client.unwrap().map(|quota| quota.remaining);
    assert_eq!(remaining, [9, 29, 9]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_out_of_reach_keeps_no_mail_from_being_given_back(
    #[values(Loss::Killed, Loss::Hanging)] loss: Loss,
) {
    let mut stage = Stage::new().await;
    let place = node_of_client(&stage.cluster, stage.client).await;
    let mail = asks(stage.client, stage.who);
    let granted = stage.store.admit(&mail).await.unwrap();
    assert_eq!(granted.admission, Admission::Granted);
    stage.lose(place, loss);
    assert!(is_unavailable(stage.store.give_back(&mail)).await);
    // Had it stayed, the cooldown would refuse this one.
    let again = stage.store.admit(&stage.who.mail()).await.unwrap();
    assert_eq!(again.admission, Admission::Granted);
}
