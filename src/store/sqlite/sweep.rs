//! What no decision asks for any more goes a few rows at a time along with what is written, so that no
//! table grows and no operation has much to do.
//!
//! Each write looks at the rows that follow its own. Keys are names that nobody chooses, spread evenly,
//! so that every row is looked at in its turn: with two new rows for each look at four, no more than
//! half of the rows are over. That needs no index by time, whose pages would be written along with each row.

use rusqlite::types::Value;
use rusqlite::{Connection, ToSql, params};

use super::signed;
use crate::otp::clock::UnixMillis;

/// A table that is swept.
pub struct Swept {
    /// Finds the keys of those among the four rows after a key that are over. A parameter in place of
    /// the number would have SQLite parse the statement each time that it is bound.
    pub following: &'static str,
    /// Removes the row with a key.
    pub remove: &'static str,
}

/// A table by its name, the column of its key and that of the instant at which a row is over.
macro_rules! swept {
    ($table:literal, $key:literal, $ends:literal) => {
        $crate::store::sqlite::sweep::Swept {
            following: concat!(
                "SELECT key FROM (SELECT ",
                $key,
                " AS key, ",
                $ends,
                " AS ends FROM ",
                $table,
                " WHERE ",
                $key,
                " > ? ORDER BY ",
                $key,
                " LIMIT 4) WHERE ends <= ?"
            ),
            remove: concat!("DELETE FROM ", $table, " WHERE ", $key, " = ?"),
        }
    };
}
pub(super) use swept;

impl Swept {
    /// Removes what is over among the rows that follow the one with this key.
    pub fn sweep_after(
        &self,
        db: &Connection,
        key: impl ToSql,
        now: UnixMillis,
    ) -> rusqlite::Result<()> {
        let over: rusqlite::Result<Vec<Value>> = db
            .prepare_cached(self.following)?
            .query_map(params![key, signed(now)], |row| row.get(0))?
            .collect();
        for key in over? {
            db.prepare_cached(self.remove)?.execute([key])?;
        }
        Ok(())
    }
}
