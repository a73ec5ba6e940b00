//! Random schedules of what happens to a store, on several backends that share one clock.

use std::cell::Cell;
use std::sync::Arc;

use otpost::otp::policy::Policy;
use otpost::store::OtpStore;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use tokio::runtime::Runtime;

use super::store_bench::{Backend, Bench};

/// The embedded backend, and others beside it that must answer alike.
pub struct Stage {
    pub bench: Bench,
    pub stores: Vec<Arc<dyn OtpStore>>,
    _others: Vec<Bench>,
    runtime: Runtime,
}

impl Stage {
    pub fn open(policy: Policy, others: &[Backend]) -> Self {
        let runtime = Runtime::new().unwrap();
        let (bench, stores, others) = runtime.block_on(async {
            let first = Bench::open_swift(Backend::Sqlite, policy).await;
            let mut stores = vec![first.store().await];
            let mut benches = Vec::new();
            for backend in others {
                let mut bench = Bench::open_with(*backend, policy).await;
                bench.clock = Arc::clone(&first.clock);
                stores.push(bench.store().await);
                benches.push(bench);
            }
            (first, stores, benches)
        });
        Self {
            bench,
            stores,
            _others: others,
            runtime,
        }
    }

    /// Fails unless so many schedules keep what they must. Each is handed a number of its own, also while
    /// a failure is made smaller, so that it need not meet what another has left in the stores.
    pub fn check<S: Strategy>(
        &self,
        cases: u32,
        schedules: &S,
        keeps: impl AsyncFn(u32, S::Value) -> TestCaseResult,
    ) {
        let number = Cell::new(0);
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new(config)
            .run(schedules, |schedule| {
                number.set(number.get() + 1);
                self.runtime.block_on(keeps(number.get(), schedule))
            })
            .unwrap();
    }
}
