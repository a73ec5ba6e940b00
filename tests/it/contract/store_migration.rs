//! A database file that an earlier version wrote is brought forward with everything in it.

use std::sync::Arc;

use otpost::otp::clock::millis;
use otpost::otp::code::Code;
use otpost::sqlite::Sqlite;
use otpost::store::sqlite::SqliteStore;
use otpost::store::{Admission, Cause, IdempotencyId, OtpStore, Verdict, VerifyRequest};
use rusqlite::{Connection, params};

use super::store_bench::{Backend, Bench, LIFETIME, LIMITED, admit, other_than};

const VERSION_1: &str = include_str!("../../../src/sqlite/1.sql");
const VERSION_2: &str = include_str!("../../../src/sqlite/2.sql");
const VERSION_3: &str = include_str!("../../../src/sqlite/3.sql");

fn signed(instant: u64) -> i64 {
    i64::try_from(instant).unwrap()
}

#[tokio::test]
async fn a_file_of_version_1_keeps_its_codes() {
    let bench = Bench::open_with(Backend::Sqlite, LIMITED).await;
    let (ann, now) = (bench.ann(), bench.now().0);
    let code = bench.request(ann, "job").candidate;
    let ends_at = now + millis(LIFETIME);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    {
        let old = Connection::open(&path).unwrap();
        old.execute_batch(VERSION_1).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        let insert = "INSERT INTO challenge VALUES (?, ?, 4, NULL, NULL, ?)";
        old.execute(
            insert,
            params![ann.challenge.0, ann.limit.0, signed(ends_at)],
        )
        .unwrap();
        old.execute(
            "INSERT INTO code VALUES (?, 0, ?, ?, ?, 6, ?, ?, 'job', ?)",
            params![
                ann.challenge.0,
                code.nonce.0,
                code.tag.0,
                code.key_id.0,
                signed(now),
                signed(ends_at),
                signed(now),
            ],
        )
        .unwrap();
    }
    let sqlite = Sqlite::open(&path).unwrap();
    let version =
        |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    assert_eq!(sqlite.run(version).await.unwrap(), 4);
    let clock = Arc::clone(&bench.clock);
    let store: Arc<dyn OtpStore> = Arc::new(SqliteStore::new(sqlite, LIMITED, clock));
    let mailed = bench.issue(&*store, ann, "job").await;
    assert_eq!(mailed.expires_at.0, ends_at);
    let right = bench.verify(&*store, ann, &mailed.code).await;
    assert_eq!(right, Verdict::Correct);
}

#[tokio::test]
async fn a_file_of_version_3_keeps_codes_successes_and_budgets() {
    let bench = Bench::open_with(Backend::Sqlite, LIMITED).await;
    let (ann, bob) = (bench.ann(), bench.who("bob@example.org", ""));
    let now = bench.now().0;
    let (anns, bobs) = (bench.request(ann, "job"), bench.request(bob, "job"));
    let key = IdempotencyId::of(&bench.keys, b"caller", bob.limit, "8e03978e-40d5-43e8");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    {
        let old = Connection::open(&path).unwrap();
        for version in [VERSION_1, VERSION_2, VERSION_3] {
            old.execute_batch(version).unwrap();
        }
        old.pragma_update(None, "user_version", 3).unwrap();
        let ends_at = signed(now + millis(LIFETIME));
        // Ann's stepped-up code has four of its attempts behind it; her mailbox has spent an hour's failures.
        old.execute(
            "INSERT INTO challenge (id, limit_id, attempts, ends_at) VALUES (?, ?, 4, ?)",
            params![ann.challenge.0, ann.limit.0, ends_at],
        )
        .unwrap();
        let insert = "INSERT INTO code VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'job', ?, ?)";
        let candidate = &anns.candidate;
        old.execute(
            insert,
            params![
                ann.challenge.0,
                0,
                candidate.nonce.0,
                anns.stepped_tag.0,
                candidate.key_id.0,
                8,
                signed(now),
                ends_at,
                signed(now),
                true
            ],
        )
        .unwrap();
        let client = data_encoding::HEXLOWER.encode(&bench.client("192.0.2.1").own().0);
        let mut failures = vec![format!("[{now},\"{client}\",1,0]"); 5];
        failures.extend(vec![format!("[{now},null,1,0]"); 5]);
        old.execute(
            "INSERT INTO budget VALUES (?, ?, ?, ?, 3)",
            params![
                ann.limit.0,
                format!("[[{now},\"{}\"]]", ann.challenge),
                format!("[{}]", failures.join(",")),
                ends_at
            ],
        )
        .unwrap();
        // Bob's code was right, and a verify left its row alone.
        old.execute(
            "INSERT INTO challenge VALUES (?, ?, 0, ?, ?, ?, 0, 7, ?, ?, ?, ?, 0)",
            params![
                bob.challenge.0,
                bob.limit.0,
                signed(now),
                ends_at,
                ends_at,
                key.0,
                bobs.candidate.key_id.0,
                bobs.candidate.tag.0,
                signed(now + 60_000)
            ],
        )
        .unwrap();
        let candidate = &bobs.candidate;
        old.execute(
            insert,
            params![
                bob.challenge.0,
                0,
                candidate.nonce.0,
                candidate.tag.0,
                candidate.key_id.0,
                6,
                signed(now),
                ends_at,
                signed(now),
                false
            ],
        )
        .unwrap();
    }
    let sqlite = Sqlite::open(&path).unwrap();
    let clock = Arc::clone(&bench.clock);
    let store: Arc<dyn OtpStore> = Arc::new(SqliteStore::new(sqlite, LIMITED, clock));

    let admission = admit(&*store, &ann.mail()).await;
    assert!(
        matches!(admission, Admission::Refused { retry_after } if retry_after == LIMITED.limits.unwrap().cooldown),
        "{admission:?}"
    );
    let mailed = bench.issue(&*store, ann, "job").await;
    let code = |nonce, who: super::store_bench::Who, digits| {
        Code::derive(bench.keys.current(), nonce, who.challenge, digits)
            .reveal()
            .to_owned()
    };
    assert_eq!(mailed.code, code(anns.candidate.nonce, ann, 8));
    let wrong = other_than(&[&mailed.code]);
    let of_the_client = VerifyRequest {
        client: Some(bench.client("192.0.2.1")),
        ..bench.typed(ann, &mailed.code)
    };
    let spent = store.verify(&of_the_client).await.unwrap().verdict;
    assert_eq!(
        spent,
        Verdict::Incorrect(Cause::BudgetSpent),
        "the client's share"
    );
    assert_eq!(
        bench.verify(&*store, ann, &wrong).await,
        Verdict::Incorrect(Cause::Wrong)
    );
    assert_eq!(
        bench.verify(&*store, ann, &mailed.code).await,
        Verdict::Incorrect(Cause::NoLiveCode),
        "the fifth attempt was the last one"
    );

    let right = code(bobs.candidate.nonce, bob, 6);
    let none = Verdict::Incorrect(Cause::NoLiveCode);
    assert_eq!(bench.verify(&*store, bob, &right).await, none);
    let again = VerifyRequest {
        idempotency: Some(key),
        ..bench.typed(bob, &right)
    };
    let verdict = store.verify(&again).await.unwrap().verdict;
    assert_eq!(verdict, Verdict::Repeated);
}
