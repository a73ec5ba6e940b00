//! Needles in all their forms, and the places to look for them.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::Connection;
use rusqlite::types::Value;
use sha2::Sha256;

use crate::support::process::PATIENCE;
use crate::support::redis_server::RedisServer;

/// Something that must not be found.
#[derive(Clone)]
pub struct Needle {
    what: String,
    text: String,
}

/// Where it must not be found.
pub struct Haystack {
    /// Its name.
    pub place: String,
    content: String,
}

impl Needle {
    /// The text as it is.
    pub fn plain(text: &str) -> Self {
        Self::new(text, "plain", text.as_bytes())
    }

    /// A text and its encodings.
    pub fn text(what: &str, text: &str) -> Vec<Self> {
        let mut forms = Self::bytes(what, text.as_bytes());
        // In the middle of other text it may stand at any of three places of a group.
        for shift in 1..3 {
            let shifted = [&vec![0; shift], text.as_bytes()].concat();
            let whole = shifted.len() / 3 * 4;
            let encoded = BASE64_NOPAD.encode(&shifted);
            forms.push(Self::new(what, "base64", &encoded.as_bytes()[4..whole]));
        }
        forms
    }

    /// Bytes and their encodings.
    pub fn bytes(what: &str, bytes: &[u8]) -> Vec<Self> {
        let whole = bytes.len() / 3 * 4;
        vec![
            Self::new(what, "plain", bytes),
            Self::new(what, "base64", &BASE64.encode(bytes).as_bytes()[..whole]),
            Self::new(
                what,
                "base64url",
                &BASE64URL_NOPAD.encode(bytes).as_bytes()[..whole],
            ),
            Self::new(what, "hex", HEXLOWER.encode(bytes).as_bytes()),
            Self::new(what, "hex", HEXUPPER.encode(bytes).as_bytes()),
        ]
    }

    /// A code, its encodings, and what anybody can compute from it without a key. A table of all
    /// codes would find nothing else.
    pub fn code(code: &str) -> Vec<Self> {
        let empty_key = <Hmac<Sha256> as KeyInit>::new_from_slice(&[]).unwrap();
        let keyed = empty_key.chain_update(code).finalize().into_bytes();
        let mut forms = Self::text("a code", code);
        forms.extend(Self::integer("a code", code));
        forms.extend(Self::bytes("an HMAC of a code without a key", &keyed));
        for tool in ["sha256sum", "sha1sum", "md5sum"] {
            forms.extend(Self::bytes(
                &format!("the {tool} of a code"),
                &digest(tool, code),
            ));
        }
        forms
    }

    /// A number as programs store it: 8 bytes, and 4 with what `MessagePack`, a dump of Redis and a list
    /// in it put before them. Four bytes alone would be found by chance in one of some hundred runs,
    /// and so would small numbers among zeros; for SQLite, which puts nothing before them, see
    /// [`sqlite_integers`].
    fn integer(what: &str, digits: &str) -> Vec<Self> {
        let number: u32 = digits.parse().unwrap();
        if number < 1 << 24 {
            return Vec::new();
        }
        let wide = u64::from(number);
        let (big, little) = (number.to_be_bytes(), number.to_le_bytes());
        vec![
            Self::new(what, "integer", &wide.to_be_bytes()),
            Self::new(what, "integer", &wide.to_le_bytes()),
            Self::new(what, "MessagePack", &[&[0xce], &big[..]].concat()),
            Self::new(what, "MessagePack", &[&[0xd2], &big[..]].concat()),
            Self::new(what, "dumped integer", &[&[0xc2], &little[..]].concat()),
            Self::new(what, "listed integer", &[&[0xf3], &little[..]].concat()),
        ]
    }

    fn new(what: &str, form: &str, bytes: &[u8]) -> Self {
        Self {
            what: format!("{what}, {form}"),
            text: latin1(bytes),
        }
    }
}

/// One character a byte, for a search that is fast without optimization.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn digest(tool: &str, text: &str) -> Vec<u8> {
    let mut child = Command::new(tool)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let said = child.wait_with_output().unwrap().stdout;
    let hex = said.split(|byte| *byte == b' ').next().unwrap();
    HEXLOWER.decode(hex).unwrap()
}

impl Haystack {
    /// What stands in this place.
    pub fn new(place: impl Into<String>, content: &[u8]) -> Self {
        Self {
            place: place.into(),
            content: latin1(content),
        }
    }

    /// Whether it is there.
    pub fn holds(&self, needle: &Needle) -> bool {
        self.content.contains(&needle.text)
    }

    /// Fails at the first that is there.
    pub fn holds_none_of(&self, needles: impl IntoIterator<Item = Needle>) {
        for needle in needles {
            assert!(
                !self.holds(&needle),
                "{} is in {}:\n{}",
                needle.what,
                self.place,
                self.content
            );
        }
    }
}

/// The files below a folder whose names begin so.
pub fn files_in(folder: &Path, begin: &str) -> Vec<Haystack> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files_in(&path, begin));
        } else if name.starts_with(begin) {
            found.push(Haystack::new(name, &std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// The integers of all rows, in eight digits each as a code has them; those that have more are none.
pub fn sqlite_integers(database: &Path) -> Haystack {
    let db = Connection::open(database).unwrap();
    let rows_of = |sql: &str| -> Vec<Vec<Value>> {
        let mut statement = db.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement
            .query_map([], |row| {
                (0..columns).map(|column| row.get(column)).collect()
            })
            .unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let mut found = String::new();
    for table in rows_of("SELECT name FROM sqlite_schema WHERE type = 'table'") {
        let Some(Value::Text(name)) = table.first() else {
            panic!("a table has a name");
        };
        for value in rows_of(&format!("SELECT * FROM {name}")).concat() {
            if let Value::Integer(number @ 0..=99_999_999) = value {
                let _ = writeln!(found, "{number:08}");
            }
        }
    }
    assert!(!found.is_empty(), "rows are there");
    Haystack::new("an integer of otpost.db", found.as_bytes())
}

/// Every key with its value in the form of a dump, which packs nothing.
pub async fn redis_values(redis: &RedisServer) -> Vec<Haystack> {
    let mut connection = redis.connect().await;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(
        keys.iter().any(|key| key.starts_with(b"otpost:{")),
        "records are there"
    );
    let mut found = Vec::new();
    for key in keys {
        let value: Option<Vec<u8>> = redis::cmd("DUMP")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .unwrap();
        let place = String::from_utf8_lossy(&key).into_owned();
        found.push(Haystack::new(
            place,
            &[key, value.unwrap_or_default()].concat(),
        ));
    }
    found
}

/// Has the server write a dump and rewrite its file of commands.
pub async fn rewrite(redis: &RedisServer) {
    let mut connection = redis.connect().await;
    for command in ["SAVE", "BGREWRITEAOF"] {
        let _: redis::Value = redis::cmd(command)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    let rewritten = async {
        loop {
            let report: String = redis::cmd("INFO")
                .arg("persistence")
                .query_async(&mut connection)
                .await
                .unwrap();
            let is_over = report.contains("aof_rewrite_in_progress:0")
                && report.contains("aof_rewrite_scheduled:0");
            // The former file is removed in the background.
            if is_over && files_in(redis.folder(), "appendonly").len() <= 3 {
                break;
            }
        }
    };
    let rewritten = tokio::time::timeout(PATIENCE, rewritten).await;
    rewritten.expect("the file is rewritten");
}

/// What this module looks for is what the stores would hold.
#[tokio::test]
async fn a_code_that_is_kept_as_a_number_is_found() {
    let code = "71936284";
    let finds = |place: &Haystack| Needle::code(code).iter().any(|needle| place.holds(needle));
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("otpost.db");
    let db = Connection::open(&database).unwrap();
    for (value, is_found) in [("71936283", false), (code, true)] {
        db.execute_batch(&format!(
            "DROP TABLE IF EXISTS kept; CREATE TABLE kept (code INTEGER); INSERT INTO kept VALUES ({value})"
        ))
        .unwrap();
        assert_eq!(finds(&sqlite_integers(&database)), is_found, "{value}");
    }
    let redis = RedisServer::start().await;
    let mut connection = redis.connect().await;
    for (place, script) in [
        ("string", "redis.call('SET', KEYS[1], '71936284')"),
        ("list", "redis.call('RPUSH', KEYS[1], '71936284')"),
        ("hash", "redis.call('HSET', KEYS[1], 'code', '71936284')"),
        (
            "packed",
            "redis.call('SET', KEYS[1], cmsgpack.pack({ code = 71936284 }))",
        ),
        (
            "text",
            "redis.call('SET', KEYS[1], cmsgpack.pack({ code = '71936284' }))",
        ),
        (
            "bytes",
            "redis.call('SET', KEYS[1], struct.pack('>l', 71936284))",
        ),
    ] {
        let _: redis::Value = redis::cmd("EVAL")
            .arg(script)
            .arg(&[1])
            .arg(format!("otpost:{{{place}}}"))
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    for value in redis_values(&redis).await {
        assert!(finds(&value), "{}", value.place);
    }
}
