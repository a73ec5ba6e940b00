//! The store's contract: what is written, how often, and that nothing of it stays for ever or
//! gives a code away.

use std::path::Path;

use otpost::otp::policy::Policy;
use otpost::sqlite::Sqlite;
use otpost::store::{Cause, EndState, Ending, OtpStore, StoreError, Verdict};
use redis::aio::MultiplexedConnection;
use rstest::rstest;
use sha2::{Digest, Sha256};

use super::store_bench::Backend::{Cluster, Redis, Sqlite as Embedded};
use super::store_bench::{Backend, Bench, LIFETIME, LIMITED, Mailed, POLICY, Who, other_than};

pub const ENDING: Ending = Ending {
    state: EndState::Sent,
    requested_at: otpost::otp::clock::UnixMillis(1),
    ended_at: otpost::otp::clock::UnixMillis(2),
};

/// Counts what became durable, seen from outside of the store.
pub enum Witness {
    Redis(MultiplexedConnection),
    Sqlite {
        sqlite: Sqlite,
        second: rusqlite::Connection,
    },
}

impl Witness {
    pub async fn of(bench: &Bench, backend: Backend) -> Self {
        match backend {
            Redis | Cluster => Self::Redis(bench.server().connect().await),
            Embedded => {
                let (sqlite, path) = bench.database();
                Self::Sqlite {
                    sqlite: sqlite.clone(),
                    second: rusqlite::Connection::open(path).unwrap(),
                }
            }
        }
    }

    /// The number of writes so far, and a figure that changes with each that reached the disk.
    pub async fn look(&mut self) -> (u64, i64) {
        match self {
            Self::Redis(connection) => (
                info(connection, "rdb_changes_since_last_save").await,
                info(connection, "aof_current_size").await,
            ),
            Self::Sqlite { sqlite, second } => (
                sqlite.commits(),
                second
                    .query_row("PRAGMA data_version", [], |row| row.get(0))
                    .unwrap(),
            ),
        }
    }
}

async fn info<T>(connection: &mut MultiplexedConnection, field: &str) -> T
where
    T: std::str::FromStr<Err: std::fmt::Debug>,
{
    let report: String = redis::cmd("INFO")
        .arg("persistence")
        .query_async(connection)
        .await
        .unwrap();
    let line = report.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap()
        .trim_start_matches(':')
        .trim()
        .parse()
        .unwrap()
}

#[rstest]
#[tokio::test]
async fn every_verify_makes_exactly_one_durable_write(#[values(Embedded, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mut witness = Witness::of(&bench, backend).await;
    let mut typed = async |code: &str, expected: Verdict| {
        let before = witness.look().await;
        assert_eq!(bench.verify(&*store, ann, code).await, expected);
        let after = witness.look().await;
        assert_eq!(after.0 - before.0, 1, "{expected:?}");
        assert_ne!(after.1, before.1, "{expected:?} did not reach the disk");
    };
    let none = Verdict::Incorrect(Cause::NoLiveCode);
    let wrong = Verdict::Incorrect(Cause::Wrong);

    typed("123456", none).await;
    typed("123456", none).await;
    let mailed = bench.issue(&*store, ann, "job 1").await;
    let other = other_than(&[&mailed.code]);
    for _ in 0..5 {
        typed(&other, wrong).await;
    }
    typed(&mailed.code, none).await;
    let mailed = bench.issue(&*store, ann, "job 2").await;
    typed(&mailed.code, Verdict::Correct).await;
    typed(&mailed.code, none).await;
    let mailed = bench.issue(&*store, ann, "job 3").await;
    bench.clock.advance(LIFETIME);
    typed(&mailed.code, none).await;
    typed(&mailed.code, none).await;
}

#[rstest]
#[tokio::test]
async fn issuing_a_live_code_again_writes_nothing(#[values(Embedded, Redis)] backend: Backend) {
    let bench = Bench::open(backend).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mut witness = Witness::of(&bench, backend).await;
    let empty = witness.look().await;
    bench.issue(&*store, ann, "job 1").await;
    let made = witness.look().await;
    assert_eq!(made.0 - empty.0, 1);
    assert_ne!(made.1, empty.1);
    bench.issue(&*store, ann, "job 2").await;
    store.ending("job 1").await.unwrap();
    assert_eq!(witness.look().await.1, made.1);
}

/// Leaves something of every kind behind and tells which codes were mailed.
async fn leave_traces(bench: &Bench, store: &dyn OtpStore) -> Vec<(Who, Mailed)> {
    let mut mails = Vec::new();
    for name in ["ann", "bob", "eve"] {
        let who = bench.who(&format!("{name}@example.org"), "login");
        mails.push((who, bench.issue(store, who, "job").await));
    }
    let other = other_than(&[&mails[0].1.code]);
    bench.verify(store, mails[0].0, &other).await;
    let right = bench.verify(store, mails[1].0, &mails[1].1.code).await;
    assert_eq!(right, Verdict::Correct);
    let nobody = bench.who("nobody@example.org", "");
    bench.verify(store, nobody, "12345678").await;
    store.attest(&bench.keys.marks()).await.unwrap();
    store.finish("request", ENDING).await.unwrap();
    store.count_unconfirmed("request").await.unwrap();
    mails
}

#[tokio::test]
async fn every_key_in_redis_has_a_ttl() {
    let bench = Bench::open(Redis).await;
    leave_traces(&bench, &*bench.store().await).await;
    let mut connection = bench.server().connect().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
    // Four records, the notes of the keys, an ending and a count.
    assert_eq!(keys.len(), 7, "{keys:?}");
    for key in keys {
        let ttl_ms: i64 = redis::cmd("PTTL")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!(ttl_ms > 0, "{key}: {ttl_ms}");
        assert!(key.starts_with("otpost:{"), "{key}");
    }
}

#[rstest]
#[tokio::test]
async fn no_file_of_the_store_gives_a_code_away(#[values(Embedded, Redis)] backend: Backend) {
    // Eight digits, so that no other number in the files is one of the codes by chance.
    let policy = Policy {
        digits: 8,
        ..POLICY
    };
    let bench = Bench::open_with(backend, policy).await;
    let mails = leave_traces(&bench, &*bench.store().await).await;
    let folder = match backend {
        Redis | Cluster => bench.server().folder().to_owned(),
        Embedded => bench.database().1.parent().unwrap().to_owned(),
    };
    let written = everything_under(&folder);
    for (who, mailed) in mails {
        assert!(contains(&written, &who.challenge.0) || backend == Redis);
        let code = mailed.code.as_bytes();
        let bound = [&who.challenge.0[..], code].concat();
        for secret in [
            code.to_vec(),
            mailed.code.parse::<u32>().unwrap().to_le_bytes().to_vec(),
            Sha256::digest(code).to_vec(),
            Sha256::digest(&bound).to_vec(),
            hex(&Sha256::digest(code)),
            hex(&Sha256::digest(&bound)),
        ] {
            assert!(!contains(&written, &secret), "{secret:?}");
        }
    }
    for personal in ["example.org", "ann", "login"] {
        assert!(!contains(&written, personal.as_bytes()), "{personal}");
    }
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    data_encoding::HEXLOWER.encode(bytes).into_bytes()
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

pub fn everything_under(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(everything_under(&path));
        } else {
            all.extend(std::fs::read(path).unwrap());
        }
    }
    assert!(!all.is_empty());
    all
}

#[rstest]
#[case::newer(&[3, 0x80], None)]
#[case::older(&[1, 0x80], None)]
#[case::empty(&[], None)]
#[case::cut_short(&[], Some(1))]
#[case::longer(&[0], Some(0))]
#[tokio::test]
async fn a_record_that_cannot_be_read_is_an_error_and_stays(
    #[case] tail: &[u8],
    #[case] behind_all_but: Option<usize>,
    #[values("c", "a")] kind: &str,
) {
    let bench = Bench::open_with(Redis, LIMITED).await;
    let (store, ann) = (bench.store().await, bench.ann());
    store.admit(&ann.mail()).await.unwrap();
    let mailed = bench.issue(&*store, ann, "job").await;
    let key = match kind {
        "c" => format!("otpost:{{{}}}:c:{}", ann.limit, ann.challenge),
        _ => format!("otpost:{{{}}}:a", ann.limit),
    };
    let mut connection = bench.server().connect().await;
    let mut get = redis::cmd("GET");
    get.arg(&key);
    let value: Vec<u8> = get.query_async(&mut connection).await.unwrap();
    let kept = behind_all_but.map_or(0, |octets| value.len() - octets);
    let value = [&value[..kept], tail].concat();
    let () = redis::cmd("SET")
        .arg(&[key.as_bytes(), &value])
        .query_async(&mut connection)
        .await
        .unwrap();
    let verified = store.verify(&bench.typed(ann, &mailed.code)).await;
    assert!(
        matches!(verified, Err(StoreError::Unreadable(_))),
        "{verified:?}"
    );
    let issued = store.issue(&bench.request(ann, "job")).await;
    assert!(
        matches!(issued, Err(StoreError::Unreadable(_))),
        "{issued:?}"
    );
    let kept: Vec<u8> = get.query_async(&mut connection).await.unwrap();
    assert_eq!(kept, value);
}

#[tokio::test]
async fn notes_that_cannot_be_read_are_errors() {
    let bench = Bench::open(Redis).await;
    let store = bench.store().await;
    let mut connection = bench.server().connect().await;
    for key in ["otpost:{keys}:marks", "otpost:{r:a}", "otpost:{r:a}:u"] {
        let () = redis::cmd("SET")
            .arg(&[key.as_bytes(), b"\x02anything"])
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    let unreadable = |error: &StoreError| matches!(error, StoreError::Unreadable(_));
    assert!(unreadable(&store.ending("a").await.unwrap_err()));
    assert!(unreadable(&store.count_unconfirmed("a").await.unwrap_err()));
    let attested = store.attest(&bench.keys.marks()).await.unwrap_err();
    assert!(matches!(attested, otpost::store::AttestError::Store(error) if unreadable(&error)));
}

#[tokio::test]
async fn members_of_a_map_that_a_later_version_added_are_kept() {
    let bench = Bench::open(Redis).await;
    let store = bench.store().await;
    store.count_unconfirmed("a").await.unwrap();
    let mut connection = bench.server().connect().await;
    let evaluate = |code: &'static str| {
        let mut command = redis::cmd("EVAL");
        command.arg(code).arg(1).arg("otpost:{r:a}:u");
        command
    };
    let add = "local r = cmsgpack.unpack(redis.call('GET', KEYS[1]):sub(2)) r.later = 'kept' \
               redis.call('SET', KEYS[1], '\\1' .. cmsgpack.pack(r), 'PX', 9999)";
    let () = evaluate(add).query_async(&mut connection).await.unwrap();
    store.count_unconfirmed("a").await.unwrap();
    let read = "local r = cmsgpack.unpack(redis.call('GET', KEYS[1]):sub(2)) \
                return {r.later, r.count}";
    let kept: (String, u32) = evaluate(read).query_async(&mut connection).await.unwrap();
    assert_eq!(kept, ("kept".to_owned(), 2));
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_gets_them_again() {
    let bench = Bench::open(Redis).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mut connection = bench.server().connect().await;
    let mut flush = async || {
        let () = redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async(&mut connection)
            .await
            .unwrap();
    };
    flush().await;
    let mailed = bench.issue(&*store, ann, "job").await;
    flush().await;
    let wrong = other_than(&[&mailed.code]);
    bench.verify(&*store, ann, &wrong).await;
    flush().await;
    assert_eq!(
        bench.verify(&*store, ann, &mailed.code).await,
        Verdict::Correct
    );
}

#[tokio::test]
async fn the_embedded_store_keeps_everything_when_it_is_opened_again() {
    let mut bench = Bench::open(Embedded).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job").await;
    let wrong = other_than(&[&mailed.code]);
    for _ in 0..4 {
        bench.verify(&*store, ann, &wrong).await;
    }
    store.finish("request", ENDING).await.unwrap();
    store.attest(&bench.keys.marks()).await.unwrap();
    drop(store);
    bench.reopen();
    let store = bench.store().await;
    assert_eq!(store.ending("request").await.unwrap(), Some(ENDING));
    assert!(
        store
            .attest(&super::store_bench::keys(2).marks())
            .await
            .is_err()
    );
    bench.verify(&*store, ann, &wrong).await;
    let verdict = bench.verify(&*store, ann, &mailed.code).await;
    assert_eq!(verdict, Verdict::Incorrect(Cause::NoLiveCode));
}

#[tokio::test]
async fn redis_keeps_everything_when_it_is_killed() {
    let mut bench = Bench::open(Redis).await;
    let (store, ann) = (bench.store().await, bench.ann());
    let mailed = bench.issue(&*store, ann, "job").await;
    let wrong = other_than(&[&mailed.code]);
    for _ in 0..4 {
        bench.verify(&*store, ann, &wrong).await;
    }
    bench.server_mut().restart().await;
    let store = bench.store().await;
    bench.verify(&*store, ann, &wrong).await;
    let verdict = bench.verify(&*store, ann, &mailed.code).await;
    assert_eq!(verdict, Verdict::Incorrect(Cause::NoLiveCode));
}
