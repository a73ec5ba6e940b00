//! The four layers and their merge. `default.toml` is also the list of what exists: its names are the
//! known names, and the type of each default is the type that a value from elsewhere must have.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use super::file::{Leaf, NoValue, parse_file};
use super::finding::{Findings, Origin};
use super::nearest::nearest;
use super::sources::Sources;

/// The lowest layer, with comments: the reference of all settings.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// What the names of our variables begin with. A single underscore would catch what Kubernetes puts
/// into the environment for a service called otpost.
pub const VARIABLE_PREFIX: &str = "OTPOST__";

/// The one flag that is no setting.
pub const DEVELOPMENT_FLAG: &str = "dev";

/// A value of one of the types that settings have.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Text, also of durations, paths and URLs.
    Text(String),
    /// A whole number.
    Number(i64),
    /// True or false.
    Boolean(bool),
    /// A list of texts.
    List(Vec<String>),
}

/// A value and where it came from. It may be a secret, hence no Debug.
#[derive(Clone)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

/// The merged settings before they are understood.
#[derive(Clone)]
pub struct Values {
    entries: BTreeMap<String, Entry>,
    /// Names in the order of `default.toml`.
    pub names: Vec<String>,
    /// Whether `--dev` was given.
    pub development_flag: bool,
    /// Whether the file is no TOML, so that any setting may be missing here.
    pub unreadable: bool,
}

impl Values {
    /// The entry of a known setting.
    pub fn entry(&self, name: &str) -> &Entry {
        self.entries
            .get(name)
            .expect("only names of default.toml are asked for")
    }

    /// The text of a setting whose default is a text.
    pub fn text(&self, name: &str) -> &str {
        match &self.entry(name).value {
            Value::Text(text) => text,
            _ => "",
        }
    }

    /// Whether any layer but the defaults gives this setting.
    pub fn is_configured(&self, name: &str) -> bool {
        self.entry(name).origin != Origin::Default
    }

    /// Replace a value by one of the same type.
    pub fn set(&mut self, name: &str, value: Value, origin: Origin) {
        self.entries
            .insert(name.to_owned(), Entry { value, origin });
    }
}

/// Put the layers on top of each other.
pub fn merge(sources: &Sources, findings: &mut Findings) -> Values {
    let mut merge = Merge {
        values: defaults(),
        findings,
    };
    if let Some((path, text)) = &sources.file {
        merge.add_file(path, text);
    }
    for (variable, text) in &sources.environment {
        merge.add_variable(variable, text);
    }
    for (name, text) in &sources.flags {
        merge.add_flag(name, text);
    }
    merge.values
}

/// The lowest layer, which is read only once.
pub fn defaults() -> Values {
    static PARSED: LazyLock<Values> = LazyLock::new(parse_defaults);
    PARSED.clone()
}

fn parse_defaults() -> Values {
    let leaves = parse_file(DEFAULTS).expect("default.toml is TOML");
    let mut values = Values {
        entries: BTreeMap::new(),
        names: Vec::new(),
        development_flag: false,
        unreadable: false,
    };
    for Leaf { name, value, .. } in leaves {
        let value = value.expect("default.toml has values of our types only");
        values.names.push(name.clone());
        values.set(&name, value, Origin::Default);
    }
    values
}

struct Merge<'a> {
    values: Values,
    findings: &'a mut Findings,
}

impl Merge<'_> {
    fn add_file(&mut self, path: &Path, text: &str) {
        let leaves = match parse_file(text) {
            Ok(leaves) => leaves,
            Err((line, message)) => {
                self.values.unreadable = true;
                let hint = if message.is_empty() {
                    "no valid TOML"
                } else {
                    &message
                };
                let name = path.display().to_string();
                return self
                    .findings
                    .add(name, None, format!("line {line}: {hint}"));
            }
        };
        for Leaf { name, value, line } in leaves {
            let origin = Origin::File {
                path: path.to_owned(),
                line,
            };
            if self.values.entries.contains_key(&name) {
                self.add_typed(&name, value, origin);
            } else if !(self.is_section(&name) && value == Err(NoValue::EmptyTable)) {
                self.refuse_unknown(name, origin);
            }
        }
    }

    fn add_variable(&mut self, variable: &str, text: &str) {
        let Some(rest) = variable.strip_prefix(VARIABLE_PREFIX) else {
            return;
        };
        let origin = Origin::Variable(variable.to_owned());
        match self
            .values
            .names
            .iter()
            .find(|name| variable_name(name) == variable)
        {
            Some(name) => self.add_text(&name.clone(), text, origin),
            None => self.refuse_unknown(rest.to_lowercase().replace("__", "."), origin),
        }
    }

    fn add_flag(&mut self, name: &str, text: &str) {
        if name == DEVELOPMENT_FLAG {
            self.values.development_flag = text == "true";
        } else if self.values.entries.contains_key(name) {
            self.add_text(name, text, Origin::Flag);
        } else {
            self.refuse_unknown(name.to_owned(), Origin::Flag);
        }
    }

    /// A value from the environment or a flag takes the type of its default, so that a text of digits
    /// stays a text.
    fn add_text(&mut self, name: &str, text: &str, origin: Origin) {
        let value = match self.values.entry(name).value {
            Value::Text(_) => Ok(Value::Text(text.to_owned())),
            Value::Number(_) => text.trim().parse().map(Value::Number).map_err(|_error| ()),
            Value::Boolean(_) => text.trim().parse().map(Value::Boolean).map_err(|_error| ()),
            Value::List(_) => return self.add_list(name, text, origin),
        };
        self.add_typed(name, value.map_err(|()| NoValue::OtherType), origin);
    }

    /// A list of nothing is a mistake more often than a wish: a secret that a template did not find
    /// would open the API. Who means it can say so in the file.
    fn add_list(&mut self, name: &str, text: &str, origin: Origin) {
        let items = text.split(',').map(str::trim);
        let items: Vec<String> = items
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect();
        if items.is_empty() {
            let message = "holds nothing; unset it, or write `[]` into the settings file";
            return self.findings.add(name, Some(origin), message);
        }
        self.add_typed(name, Ok(Value::List(items)), origin);
    }

    fn add_typed(&mut self, name: &str, value: Result<Value, NoValue>, origin: Origin) {
        let default = &self.values.entry(name).value;
        match value {
            Ok(value) if std::mem::discriminant(&value) == std::mem::discriminant(default) => {
                self.values.set(name, value, origin);
            }
            _ => {
                let expected = match default {
                    Value::Text(_) => "must be text in quotes",
                    Value::Number(_) => "must be a whole number, without quotes",
                    Value::Boolean(_) => "must be true or false, without quotes",
                    Value::List(_) => "must be a list of texts, such as [\"a\", \"b\"]",
                };
                self.findings.add(name, Some(origin), expected);
            }
        }
    }

    fn refuse_unknown(&mut self, name: String, origin: Origin) {
        let message = if self.is_section(&name) {
            "is a section, not a setting".to_owned()
        } else {
            match nearest(&name, &self.values.names) {
                Some(known) => match origin {
                    Origin::Variable(_) => {
                        format!("unknown setting; did you mean `{}`?", variable_name(known))
                    }
                    _ => format!("unknown setting; did you mean `{known}`?"),
                },
                None => "unknown setting; `otpost config print` lists all".to_owned(),
            }
        };
        self.findings.add(name, Some(origin), message);
    }

    fn is_section(&self, name: &str) -> bool {
        let inside = |known: &String| {
            known
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        self.values.names.iter().any(inside)
    }
}

/// The variable that sets this setting.
pub fn variable_name(name: &str) -> String {
    format!(
        "{VARIABLE_PREFIX}{}",
        name.to_uppercase().replace('.', "__")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_order_of_the_file() {
        let names = defaults().names;
        assert_eq!(
            names[..3],
            ["http.listen", "http.public_url", "http.trusted_proxies"]
        );
        assert_eq!(names.last().unwrap(), "log.level");
    }
}
