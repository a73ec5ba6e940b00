//! The import table as a test: modules may import what the table says, which is only ever what
//! stands below them, and only the listed places know the outside libraries that are named here.

#![expect(
    clippy::unwrap_used,
    reason = "a test may end at the first thing that is wrong"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules in reading order, each with what it may import of ours.
const TABLE: [(&str, &[&str]); 13] = [
    ("main", &["cli"]),
    ("cli", &["app", "config", "telemetry", "otp"]),
    (
        "app",
        &[
            "api",
            "processor",
            "queue",
            "store",
            "mailer",
            "redis_link",
            "sqlite",
            "config",
            "telemetry",
            "shutdown",
            "otp",
        ],
    ),
    (
        "api",
        &[
            "queue",
            "store",
            "mailer",
            "config",
            "telemetry",
            "shutdown",
            "otp",
        ],
    ),
    (
        "processor",
        &["queue", "store", "mailer", "telemetry", "otp"],
    ),
    (
        "queue",
        &["redis_link", "sqlite", "config", "telemetry", "otp"],
    ),
    (
        "store",
        &["redis_link", "sqlite", "config", "telemetry", "otp"],
    ),
    ("mailer", &["config", "telemetry", "otp"]),
    ("redis_link", &["config", "telemetry"]),
    ("sqlite", &["config", "telemetry"]),
    ("config", &["otp"]),
    ("telemetry", &[]),
    ("shutdown", &[]),
];

/// The last line of the table: nothing is below it.
const BOTTOM: &str = "otp";

/// Outside libraries and the only places that know them.
const LIBRARIES: [(&str, &[&str]); 11] = [
    ("axum", &["api/"]),
    ("hyper", &["api/"]),
    ("utoipa", &["api/"]),
    (
        "redis",
        &[
            "redis_link.rs",
            "redis_link/",
            "queue/bullmq",
            "store/redis",
        ],
    ),
    ("bullmq", &["queue/bullmq"]),
    (
        "rusqlite",
        &["sqlite.rs", "sqlite/", "queue/sqlite", "store/sqlite"],
    ),
    ("lettre", &["mailer/"]),
    ("handlebars", &["mailer/"]),
    ("prometheus_client", &["telemetry.rs", "telemetry/"]),
    ("rustix", &["app/listeners.rs"]),
    ("clap", &["cli.rs", "cli/"]),
];

type Table<'a> = &'a [(&'a str, &'a [&'a str])];

#[test]
fn every_import_is_in_the_table() {
    let findings: Vec<String> = sources()
        .iter()
        .flat_map(|(path, text)| forbidden(path, text, &TABLE))
        .collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn the_table_only_points_downwards() {
    assert_eq!(upward(&TABLE), Vec::<String>::new());
}

#[test]
fn the_table_lists_every_module_and_no_other() {
    let found: BTreeSet<String> = sources().iter().map(|(path, _)| module(path)).collect();
    let listed: BTreeSet<String> = TABLE
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain([BOTTOM.to_owned(), "lib".to_owned()])
        .collect();
    assert_eq!(found, listed);
}

#[test]
fn the_library_names_its_modules_in_the_order_of_the_table() {
    let library = fs::read_to_string(root().join("lib.rs")).unwrap();
    let named: Vec<&str> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let listed: Vec<&str> = TABLE
        .iter()
        .map(|(name, _)| *name)
        .skip(1)
        .chain([BOTTOM])
        .collect();
    assert_eq!(named, listed);
}

#[test]
fn outside_libraries_are_known_in_their_places_only() {
    let findings: Vec<String> = sources()
        .iter()
        .flat_map(|(path, text)| misplaced(path, text))
        .collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn main_has_fewer_than_40_lines() {
    let lines = fs::read_to_string(root().join("main.rs"))
        .unwrap()
        .lines()
        .count();
    assert!(lines < 40, "{lines} lines");
}

#[test]
fn a_forbidden_import_is_found_in_every_form() {
    let path = Path::new("otp/code.rs");
    for text in [
        "use crate::store::Verdict;",
        "use crate::{otp::code::Code, store};",
        "use crate::{\n    otp,\n    store::{Verdict, redis},\n};",
        "fn f() { crate::store::ping() }",
        "use super::super::store;",
    ] {
        assert_eq!(forbidden(path, text, &TABLE).len(), 1, "{text}");
    }
    assert!(
        forbidden(
            path,
            "use crate::otp::keys; // crate::store\nuse super::keys;",
            &TABLE
        )
        .is_empty()
    );
    assert_eq!(
        forbidden(Path::new("sqlite.rs"), "use super::store;", &TABLE).len(),
        1
    );
    assert_eq!(
        misplaced(Path::new("processor.rs"), "use redis::Script;").len(),
        1
    );
    assert!(misplaced(Path::new("processor.rs"), "mod redis; store::redis::x").is_empty());
}

#[test]
fn a_module_outside_the_table_is_found() {
    assert_eq!(forbidden(Path::new("helpers.rs"), "", &TABLE).len(), 1);
}

#[test]
fn a_table_that_points_upwards_is_found() {
    let table: Table = &[("a", &["b"]), ("b", &["a"])];
    assert_eq!(upward(table).len(), 1);
    let itself: Table = &[("a", &["a"])];
    assert_eq!(upward(itself).len(), 1);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file, by its path below `src`, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found
}

/// The module of the table that a file belongs to: its first folder, or its name.
fn module(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

fn forbidden(path: &Path, text: &str, table: Table) -> Vec<String> {
    let module = module(path);
    if module == "lib" {
        return Vec::new();
    }
    let allowed = match table.iter().find(|(name, _)| *name == module) {
        Some((_, allowed)) => *allowed,
        None if module == BOTTOM => &[],
        None => {
            return vec![format!(
                "src/{}: `{module}` is not in the table",
                path.display()
            )];
        }
    };
    imports(path, text)
        .into_iter()
        .filter(|import| *import != module && !allowed.contains(&import.as_str()))
        .map(|import| {
            format!(
                "src/{}: `{module}` may not import `{import}`",
                path.display()
            )
        })
        .collect()
}

/// The modules of ours that a file names from the root of the library, or by enough `super::`.
fn imports(path: &Path, text: &str) -> BTreeSet<String> {
    let code = without_comments(text);
    let depth = path.iter().count() - usize::from(path.ends_with("mod.rs"));
    let root = if path == Path::new("main.rs") {
        "otpost::"
    } else {
        "crate::"
    };
    let starts = [root.to_owned(), "super::".repeat(depth)];
    let mut found = BTreeSet::new();
    for start in starts {
        for (at, _) in code.match_indices(&start) {
            let before = code[..at].chars().next_back();
            if before
                .is_some_and(|character| character.is_alphanumeric() || "_:".contains(character))
            {
                continue;
            }
            found.extend(heads(&code[at + start.len()..]));
        }
    }
    found.retain(|name| name == BOTTOM || TABLE.iter().any(|(listed, _)| listed == name));
    found
}

/// The first names of a path or of the members of a group: `{a::b, c}` gives `a` and `c`.
fn heads(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let mut depth = 0_u32;
    let mut members = vec![String::new()];
    for character in group.chars() {
        match character {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            _ => {}
        }
        if character != ',' || depth > 0 {
            members.last_mut().unwrap().push(character);
        }
    }
    members
        .iter()
        .map(|member| name(member.trim()))
        .filter(|name| !name.is_empty())
        .collect()
}

fn name(path: &str) -> String {
    path.chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn misplaced(path: &Path, text: &str) -> Vec<String> {
    let code = without_comments(text);
    let place = path.to_str().unwrap();
    LIBRARIES
        .iter()
        .filter(|(_, places)| !places.iter().any(|start| place.starts_with(start)))
        .filter(|(library, _)| names(&code, library))
        .map(|(library, _)| format!("src/{place} may not know `{library}`"))
        .collect()
}

/// Whether a text starts a path with this library, and not a path that merely contains its name.
fn names(code: &str, library: &str) -> bool {
    code.match_indices(&format!("{library}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || "_:".contains(character))
    })
}

fn upward(table: Table) -> Vec<String> {
    let order: Vec<&str> = table
        .iter()
        .map(|(name, _)| *name)
        .chain([BOTTOM])
        .collect();
    let place = |name: &str| order.iter().position(|listed| *listed == name);
    let mut found = Vec::new();
    for (name, allowed) in table {
        for import in *allowed {
            if place(import) <= place(name) {
                found.push(format!("`{name}` points upwards to `{import}`"));
            }
        }
    }
    found
}
