//! What a verify writes weighs the same whatever it answers, since time goes by weight. The clock
//! tells the rest (`make timing`).

use otpost::store::{Cause, Verdict, VerifyRequest};

use super::store_bench::Backend::{Redis, Sqlite};
use super::store_bench::{Bench, LIMITED, Who, other_than};

/// One page in the database's log, with its head.
const LOG_PAGE: u64 = 4096 + 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_verify_writes_as_many_pages_whatever_it_answers() {
    let bench = Bench::open_with(Sqlite, LIMITED).await;
    let store = bench.store().await;
    let (ann, bob, nobody) = (
        bench.ann(),
        bench.who("bob@example.org", ""),
        bench.who("nobody@example.org", ""),
    );
    let anns = bench.issue(&*store, ann, "ann's").await.code;
    let bobs = bench.issue(&*store, bob, "bob's").await.code;
    let wrong = other_than(&[&anns, &bobs]);
    let log = beside_log(&bench);
    let mut verifies = vec![
        ("never issued", nobody, &wrong),
        ("never issued, again", nobody, &wrong),
        ("right", bob, &bobs),
        ("used", bob, &bobs),
    ];
    verifies.extend(["first", "second", "third", "fourth", "fifth"].map(|nth| (nth, ann, &wrong)));
    verifies.push(("spent", ann, &anns));
    let mut seen = Vec::new();
    for (case, who, code) in verifies {
        let before = std::fs::metadata(&log).unwrap().len();
        bench.verify(&*store, who, code).await;
        let written = std::fs::metadata(&log).unwrap().len() - before;
        seen.push((case, written / LOG_PAGE));
    }
    assert!(
        seen.iter().all(|(_, pages)| *pages == seen[0].1),
        "{seen:?}"
    );
    assert!(seen[0].1 > 0);
}

/// Where SQLite writes before it writes to the file itself.
fn beside_log(bench: &Bench) -> std::path::PathBuf {
    let mut path = bench.database().1.into_os_string();
    path.push("-wal");
    path.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailboxs_row_is_as_long_whatever_a_verify_answers() {
    let bench = Bench::open_with(Sqlite, LIMITED).await;
    let store = bench.store().await;
    let ann = bench.ann();
    store.admit(&ann.mail()).await.unwrap();
    let code = bench.issue(&*store, ann, "job").await.code;
    let wrong = other_than(&[&code]);
    let reader = rusqlite::Connection::open(bench.database().1).unwrap();
    let row = |who: Who| -> i64 {
        reader
            .query_row(
                "SELECT length(state) FROM mailbox WHERE name = ?",
                [who.limit.0],
                |row| row.get(0),
            )
            .unwrap()
    };
    let fresh = row(ann);
    for nth in 1..=5 {
        bench.verify(&*store, ann, &wrong).await;
        assert_eq!(row(ann), fresh, "after {nth} wrong codes");
    }
    let client = Some(bench.client("192.0.2.1"));
    let request = bench.typed(ann, &wrong);
    store
        .verify(&VerifyRequest { client, ..request })
        .await
        .unwrap();
    assert_eq!(row(ann), fresh);
}

#[tokio::test]
async fn a_code_beside_which_no_budget_stands_is_used_up_once() {
    let bench = Bench::open_with(Sqlite, LIMITED).await;
    let store = bench.store().await;
    let ann = bench.ann();
    let code = bench.issue(&*store, ann, "job").await.code;
    assert_eq!(bench.verify(&*store, ann, &code).await, Verdict::Correct);
    let none = Verdict::Incorrect(Cause::NoLiveCode);
    assert_eq!(bench.verify(&*store, ann, &code).await, none);
}

/// Name, state and end.
type Row = (Vec<u8>, Vec<u8>, i64);

#[tokio::test]
async fn verifies_without_a_code_add_no_rows_and_change_none() {
    let bench = Bench::open_with(Sqlite, LIMITED).await;
    let store = bench.store().await;
    let (ann, bob) = (bench.ann(), bench.who("bob@example.org", ""));
    store.admit(&bob.mail()).await.unwrap();
    let code = bench.issue(&*store, ann, "job").await.code;
    let rows = async || {
        let list = |db: &rusqlite::Connection| {
            let mut rows = db.prepare("SELECT name, state, ends_at FROM mailbox ORDER BY name")?;
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            rows.query_map([], read)?
                .collect::<rusqlite::Result<Vec<Row>>>()
        };
        bench.database().0.run(list).await.unwrap()
    };
    let before = rows().await;
    let wrong = other_than(&[&code]);
    for context in 0..50 {
        for address in ["nobody@example.org", "ann@example.org", "bob@example.org"] {
            let who = bench.who(address, &format!("context {context}"));
            bench.verify(&*store, who, &wrong).await;
        }
    }
    let after = rows().await;
    let is_new = |row: &&Row| !before.contains(row);
    assert!(before.iter().all(|row| after.contains(row)));
    // Only behind the last row there is no neighbour.
    let last = &before.last().unwrap().0;
    assert!(after.iter().filter(is_new).all(|row| row.0 > *last));
}

/// Octets of the record and of the budget.
async fn weight(bench: &Bench, who: Who) -> (usize, usize) {
    let link = bench.server().connect().await;
    let mut sizes = Vec::new();
    for key in [
        format!("otpost:{{{}}}:c:{}", who.limit, who.challenge),
        format!("otpost:{{{}}}:a", who.limit),
    ] {
        sizes.push(
            redis::cmd("STRLEN")
                .arg(key)
                .query_async(&mut link.clone())
                .await
                .unwrap(),
        );
    }
    (sizes[0], sizes[1])
}

#[tokio::test]
async fn on_redis_no_code_weighs_as_much_as_a_live_one() {
    let bench = Bench::open_with(Redis, LIMITED).await;
    let store = bench.store().await;
    let (ann, nobody) = (bench.ann(), bench.who("nobody@example.org", ""));
    let code = bench
        .issue(&*store, ann, "r".repeat(27).as_str())
        .await
        .code;
    let wrong = other_than(&[&code]);
    bench.verify(&*store, nobody, &wrong).await;
    let empty = weight(&bench, nobody).await;
    for nth in 1..=6 {
        bench.verify(&*store, ann, &wrong).await;
        assert_eq!(weight(&bench, ann).await, empty, "{nth}");
    }
    // What stands in for a code or a success is none; a success weighs nothing more.
    let bob = bench.who("bob@example.org", "");
    let bobs = bench
        .issue(&*store, bob, "r".repeat(27).as_str())
        .await
        .code;
    assert_eq!(bench.verify(&*store, bob, &bobs).await, Verdict::Correct);
    assert_eq!(weight(&bench, bob).await, empty);
    let verdict = bench.verify(&*store, nobody, "000000").await;
    assert_ne!(verdict, Verdict::Correct);
}
