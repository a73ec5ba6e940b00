//! How requests for codes get in on real backends: the budget of the whole service is spent on mails
//! alone, and whom it refuses is charged nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use otpost::api::intake::{Intake, OneStep, TwoSteps};
use otpost::otp::clock::SystemClock;
use otpost::otp::code::OsEntropy;
use otpost::otp::idempotency::{Fingerprint, IN_FLIGHT};
use otpost::otp::pace::MINUTE;
use otpost::otp::policy::Policy;
use otpost::queue::sqlite::SqliteQueue;
use otpost::queue::{JobQueue, Sources};
use otpost::store::sqlite::SqliteStore;
use otpost::store::{
    Admission, AdmitRequest, Admitted, IdempotencyId, OtpStore, Pace, PaceName, Paced, Repeatable,
    Repetition,
};
use rstest::rstest;

use crate::contract::queue::bench as queues;
use crate::contract::store_bench::Backend::{Redis, Sqlite};
use crate::contract::store_bench::{ALL_LIMITED, Backend, Bench, LIMITED};

/// An intake with a budget, as `app` makes it, and what lies behind it.
struct Rig {
    bench: Bench,
    store: Arc<dyn OtpStore>,
    queue: Arc<dyn JobQueue>,
    intake: Arc<dyn Intake>,
    _jobs: queues::Bench,
}

impl Rig {
    async fn open(backend: Backend, policy: Policy, per_minute: u32) -> Self {
        Self::with_room(backend, policy, per_minute, queues::LIMITS.max_waiting).await
    }

    /// The queue has room for so many jobs.
    async fn with_room(backend: Backend, policy: Policy, per_minute: u32, room: u64) -> Self {
        let bench = Bench::open_with(backend, policy).await;
        let global = Some(Pace {
            name: PaceName::service(&bench.keys),
            per_minute,
        });
        let store = bench.store().await;
        let two_steps = |queue: Arc<dyn JobQueue>| TwoSteps {
            store: store.clone(),
            queue,
            global,
            telemetry: Arc::default(),
        };
        let mut jobs = queues::Bench::new(match backend {
            Sqlite => queues::Backend::Sqlite,
            _ => queues::Backend::Bullmq,
        })
        .await;
        jobs.limits.max_waiting = room;
        let (queue, intake): (Arc<dyn JobQueue>, Arc<dyn Intake>) = if backend == Sqlite {
            let (sqlite, _) = bench.database();
            let sources = Sources {
                clock: Arc::new(SystemClock),
                entropy: Arc::new(OsEntropy),
                telemetry: Arc::default(),
            };
            let queue = SqliteQueue::open(sqlite.clone(), jobs.limits, sources).await;
            let queue = Arc::new(queue.unwrap());
            let intake = OneStep {
                store: SqliteStore::new(sqlite.clone(), policy, bench.clock.clone()),
                queue: queue.clone(),
                two_steps: two_steps(queue.clone()),
            };
            (queue, Arc::new(intake))
        } else {
            let queue = jobs.open().await;
            (queue.clone(), Arc::new(two_steps(queue)))
        };
        Self {
            bench,
            store,
            queue,
            intake,
            _jobs: jobs,
        }
    }

    fn mail(&self, address: &str) -> AdmitRequest {
        self.bench.who(address, "").mail()
    }

    /// A mail whose request may be repeated.
    fn repeatable(&self, address: &str, id: &str) -> AdmitRequest {
        let mail = self.mail(address);
        AdmitRequest {
            repeatable: Some(Repeatable {
                key: IdempotencyId::of(&self.bench.keys, b"caller", mail.limit, "a key"),
                fingerprint: Fingerprint([1; 16]),
                id: id.to_owned(),
            }),
            ..mail
        }
    }

    async fn take(&self, mail: &AdmitRequest) -> Admitted {
        let (id, data) = (queues::id(), queues::data());
        self.intake.take(mail, &id, &data).await.unwrap()
    }

    async fn ask(&self, address: &str) -> Admission {
        self.take(&self.mail(address)).await.admission
    }

    async fn waiting(&self) -> u64 {
        self.queue.counts().await.unwrap().waiting
    }
}

fn over_budget(retry_after: Duration) -> Admission {
    Admission::ServiceRefused { retry_after }
}

#[rstest]
#[tokio::test]
async fn whom_the_budget_refuses_is_charged_nothing_and_gets_no_mail(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let rig = Rig::open(backend, ALL_LIMITED, 2).await;
    let client = Some(rig.bench.client("192.0.2.1"));
    let ask = async |address: &str| {
        let mail = rig.mail(address);
        rig.take(&AdmitRequest { client, ..mail }).await
    };
    for address in ["ann@example.org", "bob@example.org"] {
        assert_eq!(ask(address).await.admission, Admission::Granted);
    }
    rig.bench.clock.advance(MINUTE / 2);
    for _ in 0..3 {
        let refused = ask("cid@example.org").await;
        assert_eq!(refused.admission, over_budget(MINUTE / 2));
    }
    assert_eq!(rig.waiting().await, 2);
    rig.bench.clock.advance(MINUTE / 2);
    // Neither the cooldown of the address nor the client's share is gone.
    let granted = ask("cid@example.org").await;
    assert_eq!(granted.admission, Admission::Granted);
    let left = granted.client.unwrap().map(|quota| quota.remaining);
    assert_eq!(left, [7, 27, 7]);
    assert_eq!(rig.waiting().await, 3);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_at_once_as_many_get_in_as_the_budget_has_places(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let rig = Rig::open(backend, LIMITED, 20).await;
    let addresses = (0..50).map(|number| format!("person{number}@example.org"));
    let asking = addresses.map(|address| async { rig.ask(&{ address }).await });
    let admissions = join_all(asking).await;
    let granted = admissions
        .iter()
        .filter(|each| **each == Admission::Granted);
    assert_eq!(granted.count(), 20);
    assert_eq!(rig.waiting().await, 20);
    // Not even the cooldown holds for those who were refused.
    for (number, admission) in admissions.iter().enumerate() {
        if *admission != Admission::Granted {
            assert_eq!(*admission, over_budget(MINUTE), "person {number}");
            let mail = rig.mail(&format!("person{number}@example.org"));
            let admitted = rig.store.admit(&mail).await.unwrap();
            assert_eq!(admitted.admission, Admission::Granted, "person {number}");
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_in_flight_hold_no_place(#[values(Sqlite, Redis)] backend: Backend) {
    let rig = Rig::open(backend, LIMITED, 2).await;
    assert_eq!(rig.ask("ann@example.org").await, Admission::Granted);
    let refused = join_all((0..50).map(|_| rig.ask("ann@example.org")));
    let (refused, bob) = tokio::join!(refused, rig.ask("bob@example.org"));
    assert!(
        refused
            .iter()
            .all(|each| matches!(each, Admission::Refused { .. })),
        "{refused:?}"
    );
    assert_eq!(bob, Admission::Granted);
}

#[rstest]
#[tokio::test]
async fn the_repetition_of_an_accepted_request_needs_no_place(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let rig = Rig::open(backend, LIMITED, 1).await;
    let (first, second) = (queues::id(), queues::id());
    let mail = rig.repeatable("ann@example.org", first.reveal());
    let taken = rig.intake.take(&mail, &first, &queues::data()).await;
    assert_eq!(taken.unwrap().admission, Admission::Granted);
    let again = rig.repeatable("ann@example.org", second.reveal());
    for _ in 0..3 {
        let id = first.reveal().to_owned();
        let accepted = Admission::Repeated(Repetition::Accepted { id });
        assert_eq!(rig.take(&again).await.admission, accepted);
    }
    assert_eq!(rig.waiting().await, 1);
    assert_eq!(rig.ask("bob@example.org").await, over_budget(MINUTE));
}

#[rstest]
#[tokio::test]
async fn a_repetition_that_puts_the_job_onto_the_queue_takes_its_place(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let rig = Rig::open(backend, LIMITED, 1).await;
    let id = queues::id();
    let mail = rig.repeatable("ann@example.org", id.reveal());
    // All that a process does that dies before it comes to the queue.
    rig.store.admit(&mail).await.unwrap();
    assert_eq!(rig.ask("bob@example.org").await, Admission::Granted);
    rig.bench.clock.advance(IN_FLIGHT);
    let wait = MINUTE.saturating_sub(IN_FLIGHT);
    assert_eq!(rig.take(&mail).await.admission, over_budget(wait));
    assert_eq!(rig.waiting().await, 1);
    rig.bench.clock.advance(wait);
    let id = id.reveal().to_owned();
    let accepted = Admission::Repeated(Repetition::Accepted { id });
    assert_eq!(rig.take(&mail).await.admission, accepted);
    assert_eq!(rig.waiting().await, 2);
    assert_eq!(rig.ask("cid@example.org").await, over_budget(MINUTE));
}

#[rstest]
#[tokio::test]
async fn a_mail_for_which_the_queue_has_no_room_takes_no_place(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let rig = Rig::with_room(backend, LIMITED, 2, 1).await;
    assert_eq!(rig.ask("ann@example.org").await, Admission::Granted);
    let (id, data) = (queues::id(), queues::data());
    let bob = rig.mail("bob@example.org");
    for _ in 0..3 {
        assert!(rig.intake.take(&bob, &id, &data).await.is_err());
    }
    let pace = Pace {
        name: PaceName::service(&rig.bench.keys),
        per_minute: 2,
    };
    let paced = rig.store.pace(&pace).await.unwrap();
    assert!(matches!(paced, Paced::Now(_)), "{paced:?}");
    assert_eq!(
        rig.store.admit(&bob).await.unwrap().admission,
        Admission::Granted
    );
}
