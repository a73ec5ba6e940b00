//! A database file that an earlier version wrote is brought forward with everything in it.

use std::sync::Arc;

use otpost::otp::clock::millis;
use otpost::sqlite::Sqlite;
use otpost::store::sqlite::SqliteStore;
use otpost::store::{OtpStore, Verdict};
use rusqlite::{Connection, params};

use super::store_bench::{Backend, Bench, LIFETIME, LIMITED};

const VERSION_1: &str = include_str!("../../../src/sqlite/1.sql");

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
        let signed = |instant: u64| i64::try_from(instant).unwrap();
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
    assert_eq!(sqlite.run(version).await.unwrap(), 3);
    let clock = Arc::clone(&bench.clock);
    let store: Arc<dyn OtpStore> = Arc::new(SqliteStore::new(sqlite, LIMITED, clock));
    let mailed = bench.issue(&*store, ann, "job").await;
    assert_eq!(mailed.expires_at.0, ends_at);
    let right = bench.verify(&*store, ann, &mailed.code).await;
    assert_eq!(right, Verdict::Correct);
}
