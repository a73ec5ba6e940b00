//! The store's contract: paces. Never more mails under one name in any minute than it allows.

use std::sync::Arc;
use std::time::Duration;

use otpost::otp::clock::UnixMillis;
use otpost::otp::pace::{MINUTE, PaceName};
use otpost::store::{OtpStore, Pace, Paced};
use proptest::collection::vec;
use proptest::prelude::*;
use rstest::rstest;

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Backend, Bench, POLICY};
use super::store_callers::{CALLERS, at_once, stores};
use super::store_schedules::Stage;

const SECOND: Duration = Duration::from_secs(1);

fn pace(name: u8, per_minute: u32) -> Pace {
    Pace {
        name: PaceName([name; 16]),
        per_minute,
    }
}

async fn ask(store: &dyn OtpStore, pace: Pace) -> Paced {
    store.pace(&pace).await.unwrap()
}

/// Asks so often at this instant; how many were granted.
async fn granted(store: &dyn OtpStore, pace: Pace, times: u32) -> u32 {
    let mut granted = 0;
    for _ in 0..times {
        granted += u32::from(matches!(ask(store, pace).await, Paced::Now(_)));
    }
    granted
}

#[rstest]
#[tokio::test]
async fn a_minutes_mails_are_granted_and_the_next_waits_until_the_oldest_is_a_minute_old(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(1, 3, 60)] most: u32,
) {
    let bench = Bench::open(backend).await;
    let (store, pace) = (bench.store().await, pace(1, most));
    assert_eq!(ask(&*store, pace).await, Paced::Now(bench.now()));
    bench.clock.advance(7 * SECOND);
    assert_eq!(granted(&*store, pace, 2 * most).await, most - 1);
    assert_eq!(ask(&*store, pace).await, Paced::Wait(53 * SECOND));
    bench.clock.advance(Duration::from_millis(52_999));
    assert_eq!(
        ask(&*store, pace).await,
        Paced::Wait(Duration::from_millis(1))
    );
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(granted(&*store, pace, 2 * most).await, 1);
}

#[rstest]
#[tokio::test]
async fn a_burst_across_the_edge_of_a_minute_is_no_more_than_one_pace(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, pace) = (bench.store().await, pace(1, 10));
    let into_the_minute = bench.now().0 % 60_000;
    bench
        .clock
        .advance(Duration::from_millis(59_999 - into_the_minute));
    assert_eq!(granted(&*store, pace, 20).await, 10);
    bench.clock.advance(Duration::from_millis(2));
    assert_eq!(granted(&*store, pace, 20).await, 0);
}

#[rstest]
#[tokio::test]
async fn one_name_takes_nothing_of_another(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    assert_eq!(granted(&*store, pace(1, 5), 20).await, 5);
    assert_eq!(granted(&*store, pace(2, 5), 20).await, 5);
}

#[rstest]
#[tokio::test]
async fn who_waits_takes_nothing(#[values(Sqlite, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, pace) = (bench.store().await, pace(1, 2));
    granted(&*store, pace, 2).await;
    for _ in 0..59 {
        bench.clock.advance(SECOND);
        assert_eq!(granted(&*store, pace, 20).await, 0);
    }
    bench.clock.advance(SECOND);
    assert_eq!(granted(&*store, pace, 20).await, 2);
}

#[rstest]
#[tokio::test]
async fn a_mail_that_is_given_back_makes_room_and_the_others_keep_their_instants(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, pace) = (bench.store().await, pace(1, 3));
    let mut instants = Vec::new();
    for _ in 0..3 {
        instants.push(bench.now());
        assert_eq!(granted(&*store, pace, 1).await, 1);
        bench.clock.advance(SECOND);
    }
    store.give_back_pace(pace.name, instants[1]).await.unwrap();
    // Nothing of that instant is left.
    store.give_back_pace(pace.name, instants[1]).await.unwrap();
    assert_eq!(granted(&*store, pace, 5).await, 1);
    assert_eq!(ask(&*store, pace).await, Paced::Wait(57 * SECOND));
    bench.clock.advance(57 * SECOND);
    assert_eq!(granted(&*store, pace, 5).await, 1);
    assert_eq!(ask(&*store, pace).await, Paced::Wait(2 * SECOND));
}

#[rstest]
#[tokio::test]
async fn another_pace_under_the_same_name_holds_from_then_on(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let store = bench.store().await;
    assert_eq!(granted(&*store, pace(1, 5), 9).await, 5);
    assert_eq!(granted(&*store, pace(1, 2), 9).await, 0);
    assert_eq!(granted(&*store, pace(1, 8), 9).await, 3);
}

#[rstest]
#[tokio::test]
async fn a_clock_that_is_set_back_by_a_minute_holds_up_nobody_for_longer_than_two(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let (store, pace) = (bench.store().await, pace(1, 2));
    granted(&*store, pace, 2).await;
    bench.clock.set_back(MINUTE);
    let after_a_start = bench.store().await;
    for _ in 0..2 {
        assert_eq!(ask(&*after_a_start, pace).await, Paced::Wait(MINUTE));
        bench.clock.advance(MINUTE);
    }
    assert_eq!(granted(&*after_a_start, pace, 9).await, 2);
}

#[rstest]
#[tokio::test]
async fn a_clock_that_is_set_back_by_more_holds_up_nobody_but_keeps_the_pace(
    #[values(Sqlite, Redis)] backend: Backend,
    #[values(3_600 * SECOND, MINUTE + Duration::from_millis(1))] by: Duration,
) {
    let bench = Bench::open(backend).await;
    let (store, pace) = (bench.store().await, pace(1, 3));
    granted(&*store, pace, 3).await;
    bench.clock.set_back(by);
    assert_eq!(granted(&*store, pace, 2).await, 2);
    bench.clock.advance(10 * SECOND);
    assert_eq!(granted(&*store, pace, 9).await, 1);
    assert_eq!(ask(&*store, pace).await, Paced::Wait(50 * SECOND));
    // The clock comes to where it was, and what was counted then holds up nobody either.
    for _ in 0..(by.as_secs() / 60) {
        bench.clock.advance(MINUTE);
        assert_eq!(granted(&*store, pace, 9).await, 3);
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_who_ask_at_once_at_a_pace_of_twenty_are_granted_exactly_twenty(
    #[values(Sqlite, Redis)] backend: Backend,
) {
    let bench = Bench::open(backend).await;
    let stores = stores(&bench).await;
    for round in 0..20 {
        let asked = vec![pace(round, 20); CALLERS];
        let answers = at_once(&stores, asked, |store, pace| async move {
            granted(&*store, pace, 1).await
        })
        .await;
        assert_eq!(answers.iter().sum::<u32>(), 20, "round {round}");
    }
}

#[tokio::test]
async fn the_embedded_store_keeps_its_paces_over_a_restart() {
    let mut bench = Bench::open(Sqlite).await;
    granted(&*bench.store().await, pace(1, 5), 4).await;
    bench.reopen();
    assert_eq!(granted(&*bench.store().await, pace(1, 5), 9).await, 1);
}

#[tokio::test]
async fn redis_keeps_its_paces_over_a_restart() {
    let mut bench = Bench::open(Redis).await;
    granted(&*bench.store().await, pace(1, 5), 4).await;
    bench.server_mut().kill();
    bench.server_mut().restart().await;
    assert_eq!(granted(&*bench.store().await, pace(1, 5), 9).await, 1);
}

#[tokio::test]
async fn the_embedded_store_forgets_mails_whose_minute_is_over() {
    let bench = Bench::open_swift(Sqlite, POLICY).await;
    let store = bench.store().await;
    for name in 0..50 {
        granted(&*store, pace(name, 5), 5).await;
    }
    bench.clock.advance(MINUTE);
    granted(&*store, pace(99, 200), 100).await;
    let (sqlite, _) = bench.database();
    let left = |db: &rusqlite::Connection| {
        db.query_row("SELECT count(*) FROM pace", [], |row| row.get::<_, u32>(0))
    };
    assert_eq!(sqlite.run(left).await.unwrap(), 100);
}

#[tokio::test]
async fn redis_keeps_as_many_instants_as_decide_and_for_a_minute() {
    let bench = Bench::open(Redis).await;
    let store = bench.store().await;
    for _ in 0..3 {
        granted(&*store, pace(1, 4), 9).await;
        bench.clock.advance(MINUTE);
    }
    let mut connection = bench.server().connect().await;
    let key = format!("otpost:{{m:{}}}", PaceName([1; 16]));
    let (length, left): (u32, i64) = redis::pipe()
        .llen(&key)
        .pttl(&key)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(length, 4);
    assert!((1..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_pace_that_cannot_be_read_grants_nothing() {
    let bench = Bench::open(Redis).await;
    let store = bench.store().await;
    let mut connection = bench.server().connect().await;
    let () = redis::cmd("SET")
        .arg(format!("otpost:{{m:{}}}", PaceName([1; 16])))
        .arg("anything")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(store.pace(&pace(1, 5)).await.is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Ask,
    GiveBack(prop::sample::Index),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Ask),
        1 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
        3 => (0..25_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Wait(60_000)),
    ]
}

/// Answers as a list of all mails would, and counts them from outside.
async fn keeps_the_pace(
    bench: &Bench,
    stores: &[Arc<dyn OtpStore>],
    pace: Pace,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut mails: Vec<UnixMillis> = Vec::new();
    let most = pace.per_minute as usize;
    for step in steps {
        let now = bench.now();
        match step {
            Step::Wait(millis) => bench.clock.advance(Duration::from_millis(millis)),
            Step::GiveBack(which) if !mails.is_empty() => {
                // Only what is as young as an attempt is ever given back.
                let recent = mails.len().min(3);
                let newest_but = which.index(recent);
                let at = mails.remove(mails.len() - 1 - newest_but);
                for store in stores {
                    store.give_back_pace(pace.name, at).await.unwrap();
                }
            }
            Step::GiveBack(_) => {}
            Step::Ask => {
                let within: Vec<UnixMillis> = mails
                    .iter()
                    .copied()
                    .filter(|at| at.after(MINUTE) > now)
                    .collect();
                prop_assert!(within.len() <= most);
                let expected = if within.len() < most {
                    mails.push(now);
                    Paced::Now(now)
                } else {
                    Paced::Wait(within[0].after(MINUTE).since(now))
                };
                for store in stores {
                    prop_assert_eq!(ask(&**store, pace).await, expected);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn no_schedule_has_more_mails_in_any_minute_than_the_pace_allows() {
    let stage = Stage::open(POLICY, &[Redis]);
    let schedules = (1..7_u32, vec(step(), 1..80));
    stage.check(64, &schedules, async |case, (most, steps)| {
        // A shrunk case must not meet the mails of the one before it.
        stage.bench.clock.advance(MINUTE);
        let pace = pace(case.to_be_bytes()[3], most);
        keeps_the_pace(&stage.bench, &stage.stores, pace, steps).await
    });
}
