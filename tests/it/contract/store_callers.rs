//! Many who ask a store at once. Each has its own task, the callers share ten connections, and a
//! barrier lets all of them go at once.

use std::sync::Arc;

use otpost::store::OtpStore;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::store_bench::Bench;

/// How many ask at once.
pub const CALLERS: usize = 50;
const CONNECTIONS: usize = 10;

/// The stores that the callers share.
pub async fn stores(bench: &Bench) -> Vec<Arc<dyn OtpStore>> {
    let mut stores = Vec::new();
    for _ in 0..CONNECTIONS {
        stores.push(bench.store().await);
    }
    stores
}

/// Asks with every request at once.
pub async fn at_once<R, A, F>(
    stores: &[Arc<dyn OtpStore>],
    requests: Vec<R>,
    ask: fn(Arc<dyn OtpStore>, R) -> F,
) -> Vec<A>
where
    R: Send + 'static,
    A: Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(requests.len()));
    let mut callers = JoinSet::new();
    for (number, request) in requests.into_iter().enumerate() {
        let store = Arc::clone(&stores[number % stores.len()]);
        let barrier = Arc::clone(&barrier);
        callers.spawn(async move {
            barrier.wait().await;
            ask(store, request).await
        });
    }
    callers.join_all().await
}
