//! A settings file cut into its keys, each with its line.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

use super::layers::Value;

/// Why a key of the file has no value that a setting could have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoValue {
    /// It is a section with nothing in it.
    EmptyTable,
    /// It is of a type that no setting has.
    OtherType,
}

/// A key of the file that is no section with something in it.
pub struct Leaf {
    /// Its dotted name.
    pub name: String,
    /// Its value, if settings have such values.
    pub value: Result<Value, NoValue>,
    /// The line where it stands.
    pub line: usize,
}

/// The keys of a TOML file in their order, or the line and the reason why it is none. The parser's own
/// form of the error would quote the line, with the secret that may stand in it.
pub fn parse_file(text: &str) -> Result<Vec<Leaf>, (usize, String)> {
    let table = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        (line_of(text, start), error.message().to_owned())
    })?;
    let mut leaves = Vec::new();
    collect_leaves("", table.get_ref(), &mut leaves);
    leaves.sort_by_key(|(start, _leaf)| *start);
    let with_line = |(start, leaf)| Leaf {
        line: line_of(text, start),
        ..leaf
    };
    Ok(leaves.into_iter().map(with_line).collect())
}

fn collect_leaves(section: &str, table: &DeTable<'_>, leaves: &mut Vec<(usize, Leaf)>) {
    for (key, value) in table {
        // A quoted key with a dot is not the path that it looks like.
        let key_text: &str = key.get_ref();
        let key_text = if key_text.contains('.') {
            Cow::Owned(format!("\"{key_text}\""))
        } else {
            Cow::Borrowed(key_text)
        };
        let name = match section {
            "" => key_text.into_owned(),
            _ => format!("{section}.{key_text}"),
        };
        let value = match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => {
                collect_leaves(&name, inner, leaves);
                continue;
            }
            other => typed(other),
        };
        leaves.push((
            key.span().start,
            Leaf {
                name,
                value,
                line: 0,
            },
        ));
    }
}

fn typed(value: &DeValue<'_>) -> Result<Value, NoValue> {
    match value {
        DeValue::String(text) => Ok(Value::Text(text.clone().into_owned())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::Number)
            .map_err(|_error| NoValue::OtherType),
        DeValue::Boolean(boolean) => Ok(Value::Boolean(*boolean)),
        DeValue::Array(items) => {
            let text = |item: &DeValue<'_>| match item {
                DeValue::String(text) => Ok(text.clone().into_owned()),
                _ => Err(NoValue::OtherType),
            };
            items
                .iter()
                .map(|item| text(item.get_ref()))
                .collect::<Result<_, _>>()
                .map(Value::List)
        }
        DeValue::Table(_) => Err(NoValue::EmptyTable),
        DeValue::Float(_) | DeValue::Datetime(_) => Err(NoValue::OtherType),
    }
}

fn line_of(text: &str, position: usize) -> usize {
    let before = text.get(..position).unwrap_or(text);
    1 + before.matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_the_order_of_the_file_with_their_lines() {
        let text = "[mail.smtp]\nurl = \"x\"\n\n[mail]\nproduct = 5\nfrom = 1.5\n[log]\n\"a.b\" = []\n[ops]\n";
        let leaves = parse_file(text).unwrap_or_default();
        let found: Vec<_> = leaves
            .iter()
            .map(|leaf| (leaf.name.as_str(), leaf.line))
            .collect();
        let expected = [
            ("mail.smtp.url", 2),
            ("mail.product", 5),
            ("mail.from", 6),
            ("log.\"a.b\"", 8),
            ("ops", 9),
        ];
        assert_eq!(found, expected);
        assert!(leaves[1].value == Ok(Value::Number(5)));
        assert!(leaves[2].value == Err(NoValue::OtherType));
        assert!(leaves[4].value == Err(NoValue::EmptyTable));
    }

    #[test]
    fn an_error_tells_the_line_and_not_its_text() {
        let Err((line, message)) = parse_file("[keys]\nmaster = \"hunter2\nx = 1\n") else {
            panic!()
        };
        assert_eq!(line, 2);
        assert!(
            !message.is_empty() && !message.contains("hunter2"),
            "{message}"
        );
    }
}
