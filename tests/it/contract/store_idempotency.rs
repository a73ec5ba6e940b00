//! The store's contract: requests that their clients repeat.

use std::sync::Arc;
use std::time::Duration;

use otpost::otp::idempotency::{Fingerprint, IN_FLIGHT, REQUEST_REPLAY};
use otpost::otp::policy::Policy;
use otpost::store::{
    Admission, AdmitRequest, ClientBuckets, IdempotencyId, OtpStore, Repeatable, Repetition,
    StoreError,
};
use rstest::rstest;

use super::store_bench::Backend::{Cluster, Redis, Sqlite};
use super::store_bench::{
    ALL_LIMITED, Backend, Bench, CLIENT_LIMITS, LIMITED, LIMITS, POLICY, Who, admit,
};
use super::store_callers::{CALLERS, at_once, stores};

const KEY: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

/// A request under `KEY` by one caller, which says what `fingerprint` stands for.
fn request(bench: &Bench, who: Who, fingerprint: u8, id: &str) -> AdmitRequest {
    AdmitRequest {
        repeatable: Some(Repeatable {
            key: IdempotencyId::of(&bench.keys, b"caller", who.limit, KEY),
            fingerprint: Fingerprint([fingerprint; 16]),
            id: id.to_owned(),
        }),
        ..who.mail()
    }
}

/// A bench on which a first request of Ann's was granted.
struct Granted {
    bench: Bench,
    store: Arc<dyn OtpStore>,
    ann: Who,
    first: AdmitRequest,
}

impl Granted {
    async fn open(backend: Backend, policy: Policy) -> Self {
        let bench = Bench::open_with(backend, policy).await;
        let (store, ann) = (bench.store().await, bench.ann());
        let first = request(&bench, ann, 1, "1");
        assert_eq!(admit(&*store, &first).await, Admission::Granted);
        Self {
            bench,
            store,
            ann,
            first,
        }
    }

    /// Another request of Ann's under the same key.
    fn request(&self, fingerprint: u8, id: &str) -> AdmitRequest {
        request(&self.bench, self.ann, fingerprint, id)
    }

    async fn ask(&self, request: &AdmitRequest) -> Admission {
        admit(&*self.store, request).await
    }

    /// Notes that a job of this request is on the queue.
    async fn note(&self, request: &AdmitRequest) {
        note(&*self.store, request).await;
    }

    fn wait(&self, span: Duration) {
        self.bench.clock.advance(span);
    }
}

fn by(client: ClientBuckets, request: AdmitRequest) -> AdmitRequest {
    AdmitRequest {
        client: Some(client),
        ..request
    }
}

async fn note(store: &dyn OtpStore, request: &AdmitRequest) {
    let repeatable = request.repeatable.as_ref().unwrap();
    store
        .note_enqueued(repeatable, request.limit)
        .await
        .unwrap();
}

fn accepted(id: &str) -> Admission {
    Admission::Repeated(Repetition::Accepted { id: id.to_owned() })
}

fn unfinished(id: &str) -> Admission {
    Admission::Repeated(Repetition::Unfinished { id: id.to_owned() })
}

fn in_flight(retry_after: Duration) -> Admission {
    Admission::Repeated(Repetition::InFlight { retry_after })
}

const OTHER_REQUEST: Admission = Admission::Repeated(Repetition::OtherRequest);

#[rstest]
#[tokio::test]
async fn a_clock_that_jumped_ahead_keeps_no_request_in_flight(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let granted = Granted::open(backend, LIMITED).await;
    let hour = Duration::from_secs(3_600);
    granted.wait(hour);
    let repeated = granted.request(1, "2");
    assert_eq!(granted.ask(&repeated).await, unfinished("1"));
    granted.bench.clock.set_back(hour);
    assert_eq!(granted.ask(&repeated).await, unfinished("1"));
    assert_eq!(granted.ask(&repeated).await, in_flight(IN_FLIGHT));
}

#[rstest]
#[tokio::test]
async fn a_repeated_request_has_the_first_id_and_is_not_counted_again(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(POLICY, LIMITED)] policy: Policy,
) {
    let granted = Granted::open(backend, policy).await;
    granted.note(&granted.first).await;
    for number in 0..20 {
        granted.wait(Duration::from_secs(1));
        let again = granted.request(1, &format!("again {number}"));
        assert_eq!(granted.ask(&again).await, accepted("1"));
    }
    // Had any of them been counted, the cooldown would go on.
    granted.wait(LIMITS.cooldown.saturating_sub(Duration::from_secs(20)));
    let next = granted.ask(&granted.ann.mail()).await;
    assert_eq!(next, Admission::Granted);
}

#[rstest]
#[tokio::test]
async fn the_same_key_with_another_request_is_told_so(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(POLICY, LIMITED)] policy: Policy,
) {
    let granted = Granted::open(backend, policy).await;
    let (first, other) = (&granted.first, granted.request(2, "2"));
    assert_eq!(granted.ask(&other).await, OTHER_REQUEST);
    granted.note(first).await;
    assert_eq!(granted.ask(&other).await, OTHER_REQUEST);
    assert_eq!(granted.ask(first).await, accepted("1"));
}

#[rstest]
#[tokio::test]
async fn a_request_is_in_flight_until_it_is_noted_or_nobody_can_work_on_it_any_more(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(POLICY, LIMITED)] policy: Policy,
) {
    let granted = Granted::open(backend, policy).await;
    let again = granted.request(1, "2");
    let ask = async || granted.ask(&again).await;
    assert_eq!(ask().await, in_flight(IN_FLIGHT));
    let nearly = IN_FLIGHT.saturating_sub(Duration::from_millis(1));
    granted.wait(nearly);
    assert_eq!(ask().await, in_flight(Duration::from_millis(1)));
    granted.wait(Duration::from_millis(1));
    // One repetition takes it over, and then it is in flight again, under the same id.
    assert_eq!(ask().await, unfinished("1"));
    assert_eq!(ask().await, in_flight(IN_FLIGHT));
    granted.wait(IN_FLIGHT);
    assert_eq!(ask().await, unfinished("1"));
    granted.note(&granted.first).await;
    assert_eq!(ask().await, accepted("1"));
}

#[rstest]
#[tokio::test]
async fn a_refused_request_leaves_no_record(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open_with(backend, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let granted = admit(&*store, &ann.mail()).await;
    assert_eq!(granted, Admission::Granted);
    let refused = admit(&*store, &request(&bench, ann, 1, "1")).await;
    assert!(matches!(refused, Admission::Refused { .. }), "{refused:?}");
    bench.clock.advance(LIMITS.cooldown);
    let other = admit(&*store, &request(&bench, ann, 2, "2")).await;
    assert_eq!(other, Admission::Granted);
}

#[rstest]
#[tokio::test]
async fn a_request_that_is_given_back_leaves_no_record(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(POLICY, LIMITED)] policy: Policy,
) {
    let granted = Granted::open(backend, policy).await;
    let (store, first) = (&granted.store, &granted.first);
    store.give_back(first).await.unwrap();
    let other = granted.request(2, "2");
    assert_eq!(granted.ask(&other).await, Admission::Granted);
    // What belongs to another request stays.
    store.give_back(first).await.unwrap();
    let again = granted.ask(&granted.request(2, "3")).await;
    assert_eq!(again, in_flight(IN_FLIGHT));
}

#[rstest]
#[tokio::test]
async fn a_request_is_remembered_for_a_day(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(POLICY, LIMITED)] policy: Policy,
) {
    let granted = Granted::open(backend, policy).await;
    let (first, again) = (&granted.first, granted.request(1, "2"));
    // Neither taking it over nor noting it makes that longer.
    granted.wait(IN_FLIGHT);
    assert_eq!(granted.ask(first).await, unfinished("1"));
    granted.note(first).await;
    let nearly = REQUEST_REPLAY.saturating_sub(IN_FLIGHT + Duration::from_millis(1));
    granted.wait(nearly);
    assert_eq!(granted.ask(&again).await, accepted("1"));
    granted.wait(Duration::from_millis(1));
    assert_eq!(granted.ask(&again).await, Admission::Granted);
    granted.note(&again).await;
    assert_eq!(granted.ask(first).await, accepted("2"));
}

#[rstest]
#[tokio::test]
async fn callers_mailboxes_and_keys_are_independent(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann, bob) = (
        bench.store().await,
        bench.ann(),
        bench.who("bob@example.org", ""),
    );
    let other_key = "8e03978e-40d5-43e8-bc93-6894a57f9325";
    for (who, caller, key) in [
        (ann, &b"caller"[..], KEY),
        (ann, b"other", KEY),
        (ann, b"caller", other_key),
        (bob, b"caller", KEY),
    ] {
        let mut request = request(&bench, who, 1, "id");
        let repeatable = request.repeatable.as_mut().unwrap();
        repeatable.key = IdempotencyId::of(&bench.keys, caller, who.limit, key);
        assert_eq!(admit(&*store, &request).await, Admission::Granted);
        assert_eq!(admit(&*store, &request).await, in_flight(IN_FLIGHT));
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_equal_requests_at_once_one_is_granted(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(POLICY, LIMITED)] policy: Policy,
) {
    let bench = Bench::open_with(backend, policy).await;
    let stores = stores(&bench).await;
    for round in 0..10 {
        let who = bench.who(&format!("{round}@example.org"), "");
        let requests = (0..CALLERS).map(|number| request(&bench, who, 1, &format!("id {number}")));
        let admissions = at_once(&stores, requests.collect(), |store, request| async move {
            admit(&*store, &request).await
        })
        .await;
        let count = |wanted: &Admission| admissions.iter().filter(|it| *it == wanted).count();
        assert_eq!(count(&Admission::Granted), 1, "{admissions:?}");
        assert_eq!(count(&in_flight(IN_FLIGHT)), 49, "{admissions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_decides_about_repeated_requests_on_one_node() {
    let bench = Bench::open_with(Cluster, ALL_LIMITED).await;
    let store = bench.store().await;
    for number in 0..20 {
        let who = bench.who(&format!("{number}@example.org"), "");
        let client = bench.client(&format!("192.0.2.{number}"));
        let first = by(client, request(&bench, who, 1, "1"));
        assert_eq!(admit(&*store, &first).await, Admission::Granted);
        store.give_back(&first).await.unwrap();
        assert_eq!(admit(&*store, &first).await, Admission::Granted);
        note(&*store, &first).await;
        let again = by(client, request(&bench, who, 1, "2"));
        assert_eq!(admit(&*store, &again).await, accepted("1"));
    }
}

/// Who lost the answer to the last request that a limit allows hears what came of it, and not of the
/// limit.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_request_that_took_a_clients_last_place_is_answered_again(
    #[values(Sqlite, Redis, Cluster)] backend: Backend,
) {
    let bench = Bench::open_with(backend, ALL_LIMITED).await;
    let (store, client) = (bench.store().await, bench.client("192.0.2.1"));
    for number in 1..CLIENT_LIMITS.generate_per_10m {
        let who = bench.who(&format!("{number}@example.org"), "");
        let mail = by(client, who.mail());
        assert_eq!(admit(&*store, &mail).await, Admission::Granted);
    }
    let ann = bench.ann();
    let [last, again, other] = [(1, "1"), (1, "2"), (2, "3")]
        .map(|(fingerprint, id)| by(client, request(&bench, ann, fingerprint, id)));
    assert_eq!(admit(&*store, &last).await, Admission::Granted);
    assert_eq!(admit(&*store, &again).await, in_flight(IN_FLIGHT));
    note(&*store, &last).await;
    for _ in 0..3 {
        let admitted = store.admit(&again).await.unwrap();
        assert_eq!(admitted.admission, accepted("1"));
        let left = admitted.client.unwrap().map(|quota| quota.remaining);
        assert_eq!(left, [0, 20, 0]);
    }
    assert_eq!(admit(&*store, &other).await, OTHER_REQUEST);
    let retry_after = Duration::from_secs(3_600);
    let refused = Admission::ClientRefused { retry_after };
    let bob = by(
        client,
        request(&bench, bench.who("bob@example.org", ""), 1, "4"),
    );
    assert_eq!(admit(&*store, &bob).await, refused);
    // Nothing is remembered of what was refused.
    assert_eq!(admit(&*store, &bob).await, refused);
}

#[tokio::test]
async fn what_came_of_a_request_has_a_ttl_of_a_day_and_no_key_in_clear() {
    let bench = Bench::open_with(Redis, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let first = request(&bench, ann, 1, "1");
    store.admit(&first).await.unwrap();
    let mut connection = bench.server().connect().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("otpost:{{{}}}:i:*", ann.limit))
        .query_async(&mut connection)
        .await
        .unwrap();
    let [key] = &keys[..] else {
        panic!("{keys:?}");
    };
    let mut read = async |command: &str| -> redis::Value {
        redis::cmd(command)
            .arg(key)
            .query_async(&mut connection)
            .await
            .unwrap()
    };
    let day_ms = i64::try_from(REQUEST_REPLAY.as_millis()).unwrap();
    let redis::Value::Int(ttl_ms) = read("PTTL").await else {
        panic!("no TTL");
    };
    assert!((day_ms - 60_000..=day_ms).contains(&ttl_ms), "{ttl_ms}");
    let value = format!("{:?}", read("GET").await);
    assert!(!value.contains("8e03978e") && !key.contains("8e03978e"));
}

#[rstest]
#[case::newer(&[2, 0x80])]
#[case::garbage(&[1, 0xc1])]
#[tokio::test]
async fn what_came_of_a_request_and_cannot_be_read_is_an_error(#[case] value: &[u8]) {
    let bench = Bench::open_with(Redis, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let first = request(&bench, ann, 1, "1");
    let repeatable = first.repeatable.as_ref().unwrap();
    let name = data_encoding::HEXLOWER.encode(&repeatable.key.0);
    let () = redis::cmd("SET")
        .arg(format!("otpost:{{{}}}:i:{name}", ann.limit))
        .arg(value)
        .query_async(&mut bench.server().connect().await)
        .await
        .unwrap();
    let unreadable = |error: &StoreError| matches!(error, StoreError::Unreadable(_));
    assert!(unreadable(&store.admit(&first).await.unwrap_err()));
    assert!(unreadable(&store.give_back(&first).await.unwrap_err()));
    let noted = store.note_enqueued(repeatable, ann.limit).await;
    assert!(unreadable(&noted.unwrap_err()));
}

#[tokio::test]
async fn rows_of_requests_that_are_over_go_away() {
    let bench = Bench::open(Sqlite).await;
    let store = bench.store().await;
    let second = rusqlite::Connection::open(bench.database().1).unwrap();
    for number in 0..60 {
        let who = bench.who(&format!("{number}@example.org"), "");
        store.admit(&request(&bench, who, 1, "id")).await.unwrap();
        bench.clock.advance(Duration::from_secs(2 * 60 * 60));
        let count = "SELECT count(*) FROM idempotency";
        let rows: u32 = second.query_row(count, [], |row| row.get(0)).unwrap();
        assert!(rows <= 20, "{rows}");
    }
}
