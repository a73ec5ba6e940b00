//! A database file that an earlier version wrote is brought forward with everything in it.

use std::sync::Arc;

use otpost::otp::clock::millis;
use otpost::otp::code::{Code, Tag};
use otpost::sqlite::Sqlite;
use otpost::store::sqlite::SqliteStore;
use otpost::store::{
    Admission, Cause, IdempotencyId, IssueRequest, OtpStore, Verdict, VerifyRequest,
};
use rusqlite::{Connection, params};

use super::store_bench::{Backend, Bench, LIFETIME, LIMITED, Who, admit, other_than};

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

/// A database as version 3 wrote it, and what was put into it.
struct OldFile<'a> {
    bench: &'a Bench,
    db: Connection,
    ends_at: i64,
}

impl OldFile<'_> {
    fn put_code(&self, who: Who, code: &IssueRequest, tag: Tag, digits: u8) {
        let insert = "INSERT INTO code VALUES (?, 0, ?, ?, ?, ?, ?, ?, 'job', ?, ?)";
        let now = signed(self.bench.now().0);
        let values = params![
            who.challenge.0,
            code.candidate.nonce.0,
            tag.0,
            code.candidate.key_id.0,
            digits,
            now,
            self.ends_at,
            now,
            digits == 8
        ];
        self.db.execute(insert, values).unwrap();
    }

    /// A stepped-up code with four of its attempts behind it, in a mailbox that has spent the failures of
    /// an hour.
    fn put_stepped_up(&self, who: Who, code: &IssueRequest) {
        let insert = "INSERT INTO challenge (id, limit_id, attempts, ends_at) VALUES (?, ?, 4, ?)";
        let values = params![who.challenge.0, who.limit.0, self.ends_at];
        self.db.execute(insert, values).unwrap();
        self.put_code(who, code, code.stepped_tag, 8);
        let client = data_encoding::HEXLOWER.encode(&self.bench.client("192.0.2.1").own().0);
        let now = self.bench.now().0;
        let mut failures = vec![format!("[{now},\"{client}\",1,0]"); 5];
        failures.extend(vec![format!("[{now},null,1,0]"); 5]);
        let insert = "INSERT INTO budget VALUES (?, ?, ?, ?, 3)";
        let values = params![
            who.limit.0,
            format!("[[{now},\"{}\"]]", who.challenge),
            format!("[{}]", failures.join(",")),
            self.ends_at
        ];
        self.db.execute(insert, values).unwrap();
    }

    /// A code that was right and may be answered again; a verify left its row alone.
    fn put_success(&self, who: Who, code: &IssueRequest, key: IdempotencyId) {
        let insert = "INSERT INTO challenge VALUES (?, ?, 0, ?, ?, ?, 0, 7, ?, ?, ?, ?, 0)";
        let now = self.bench.now().0;
        let values = params![
            who.challenge.0,
            who.limit.0,
            signed(now),
            self.ends_at,
            self.ends_at,
            key.0,
            code.candidate.key_id.0,
            code.candidate.tag.0,
            signed(now + 60_000)
        ];
        self.db.execute(insert, values).unwrap();
        self.put_code(who, code, code.candidate.tag, 6);
    }
}

#[tokio::test]
async fn a_file_of_version_3_keeps_codes_successes_and_budgets() {
    let bench = Bench::open_with(Backend::Sqlite, LIMITED).await;
    let (ann, bob) = (bench.ann(), bench.who("bob@example.org", ""));
    let (anns, bobs) = (bench.request(ann, "job"), bench.request(bob, "job"));
    let key = IdempotencyId::of(&bench.keys, b"caller", bob.limit, "8e03978e-40d5-43e8");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    let db = Connection::open(&path).unwrap();
    for version in [VERSION_1, VERSION_2, VERSION_3] {
        db.execute_batch(version).unwrap();
    }
    db.pragma_update(None, "user_version", 3).unwrap();
    let ends_at = signed(bench.now().0 + millis(LIFETIME));
    let old = OldFile {
        bench: &bench,
        db,
        ends_at,
    };
    old.put_stepped_up(ann, &anns);
    old.put_success(bob, &bobs, key);
    drop(old);
    let store = SqliteStore::new(Sqlite::open(&path).unwrap(), LIMITED, bench.clock.clone());

    let cooldown = LIMITED.limits.unwrap().cooldown;
    let refused = Admission::Refused {
        retry_after: cooldown,
    };
    assert_eq!(admit(&store, &ann.mail()).await, refused);
    let mailed = bench.issue(&store, ann, "job").await;
    assert_eq!(mailed.code, code_of(&bench, ann, &anns, 8));
    let of_the_client = VerifyRequest {
        client: Some(bench.client("192.0.2.1")),
        ..bench.typed(ann, &mailed.code)
    };
    let incorrect = Verdict::Incorrect;
    let verdict = store.verify(&of_the_client).await.unwrap().verdict;
    assert_eq!(verdict, incorrect(Cause::BudgetSpent), "its share is spent");
    let wrong = other_than(&[&mailed.code]);
    let verdict = bench.verify(&store, ann, &wrong).await;
    assert_eq!(verdict, incorrect(Cause::Wrong));
    let verdict = bench.verify(&store, ann, &mailed.code).await;
    assert_eq!(verdict, incorrect(Cause::NoLiveCode), "that was the fifth");

    let right = code_of(&bench, bob, &bobs, 6);
    let verdict = bench.verify(&store, bob, &right).await;
    assert_eq!(verdict, incorrect(Cause::NoLiveCode));
    let again = VerifyRequest {
        idempotency: Some(key),
        ..bench.typed(bob, &right)
    };
    let verdict = store.verify(&again).await.unwrap().verdict;
    assert_eq!(verdict, Verdict::Repeated);
}

fn code_of(bench: &Bench, who: Who, request: &IssueRequest, digits: u8) -> String {
    let nonce = request.candidate.nonce;
    let code = Code::derive(bench.keys.current(), nonce, who.challenge, digits);
    code.reveal().to_owned()
}
