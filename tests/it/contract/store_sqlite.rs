//! What only the embedded store promises: that it tells when no write works.

use rusqlite::Connection;

use super::store_bench::Backend::Sqlite;
use super::store_bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_fails_while_no_write_works() {
    let bench = Bench::open(Sqlite).await;
    let store = bench.store().await;
    store.ping().await.unwrap();
    let database = Connection::open(bench.database().1).unwrap();
    database
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE UPDATE ON dummy_write
             BEGIN SELECT RAISE(ABORT, 'no write works'); END",
        )
        .unwrap();
    assert!(store.ping().await.is_err());
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    store.ping().await.unwrap();
}
