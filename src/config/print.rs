//! The settings in effect as text: TOML with the origin of each value, and nothing secret.

use super::finding::Origin;
use super::layers::{Value, Values};
use super::url::mask_url;

/// A setting as it may be shown.
#[derive(Clone, Debug)]
pub struct ShownSetting {
    /// Dotted name.
    pub name: String,
    /// The value in TOML, with `***` in place of what is secret.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// All settings as they may be shown, in the order of `default.toml`.
pub fn show(values: &Values) -> Vec<ShownSetting> {
    let show_one = |name: &String| {
        let entry = values.entry(name);
        let value = to_toml(&mask(name, &entry.value));
        ShownSetting {
            name: name.clone(),
            value,
            origin: entry.origin.clone(),
        }
    };
    values.names.iter().map(show_one).collect()
}

/// The settings under their section headers.
pub fn print(shown: &[ShownSetting]) -> String {
    let mut lines = Vec::new();
    let mut current_section = "";
    for ShownSetting {
        name,
        value,
        origin,
    } in shown
    {
        let (section, key) = name.rsplit_once('.').unwrap_or(("", name));
        if section != current_section {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.push(format!("[{section}]"));
            current_section = section;
        }
        lines.push(format!("{key} = {value}  # {origin}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn mask(name: &str, value: &Value) -> Value {
    let mask_text = |text: &String| match (name, text.as_str()) {
        ("store.url" | "mail.smtp.url", text) => mask_url(text),
        ("keys.master" | "keys.previous" | "keys.address" | "http.api_keys", "") => String::new(),
        ("keys.master" | "keys.previous" | "keys.address" | "http.api_keys", _) => "***".to_owned(),
        (_, text) => text.to_owned(),
    };
    match value {
        Value::Text(text) => Value::Text(mask_text(text)),
        Value::List(items) => Value::List(items.iter().map(mask_text).collect()),
        other => other.clone(),
    }
}

fn to_toml(value: &Value) -> String {
    match value {
        Value::Text(text) => toml::Value::from(text.as_str()).to_string(),
        Value::Number(number) => number.to_string(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::List(items) => toml::Value::from(items.clone()).to_string(),
    }
}
