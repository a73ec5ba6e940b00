//! What a verify writes weighs the same whatever it answers, since time goes by weight. The clock
//! tells the rest (`make timing`).

use otpost::store::{Verdict, VerifyRequest};

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
    let (ann, nobody) = (bench.ann(), bench.who("nobody@example.org", ""));
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
    bench.verify(&*store, nobody, &wrong).await;
    let empty = row(nobody);
    for nth in 1..=5 {
        bench.verify(&*store, ann, &wrong).await;
        assert_eq!(row(ann), empty, "after {nth} wrong codes");
    }
    let client = Some(bench.client("192.0.2.1"));
    let request = bench.typed(nobody, &wrong);
    store
        .verify(&VerifyRequest { client, ..request })
        .await
        .unwrap();
    assert_eq!(row(nobody), empty);
}

#[tokio::test]
async fn verifies_without_a_code_leave_two_rows_however_many_contexts_there_are() {
    let bench = Bench::open_with(Sqlite, LIMITED).await;
    let store = bench.store().await;
    for context in 0..50 {
        let who = bench.who("nobody@example.org", &context.to_string());
        bench.verify(&*store, who, "000000").await;
    }
    let count = |db: &rusqlite::Connection| {
        db.query_row("SELECT count(*) FROM mailbox", [], |row| row.get(0))
    };
    let rows: u32 = bench.database().0.run(count).await.unwrap();
    assert_eq!(rows, 2, "a budget, and a record that says nothing");
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
