//! A sender as it stands in the `From` field: a name and an address.

use std::fmt;

/// A name, if any, and an address whose local part is a plain dot-atom and whose domain is in A-labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// The name to show.
    pub name: Option<String>,
    /// The address, `local@domain`.
    pub address: String,
}

impl Mailbox {
    /// Parse `Name <local@domain>`, `"Name" <local@domain>` or `local@domain`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>') {
            None => (None, text),
            Some(open) => {
                let (name, address) = open
                    .rsplit_once('<')
                    .ok_or("must be `Name <local@domain>` or `local@domain`")?;
                (parse_name(name.trim())?, address)
            }
        };
        Ok(Self {
            name,
            address: parse_address(address)?,
        })
    }

    /// The domain of the address.
    pub fn domain(&self) -> &str {
        self.address
            .rsplit_once('@')
            .map_or("", |(_local, domain)| domain)
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(formatter, "{name} <{}>", self.address),
            None => formatter.write_str(&self.address),
        }
    }
}

fn parse_name(text: &str) -> Result<Option<String>, &'static str> {
    let name = match text.strip_prefix('"') {
        Some(open) => open
            .strip_suffix('"')
            .ok_or("has a name without its closing quote")?,
        None => text,
    };
    if name
        .chars()
        .any(|character| character.is_control() || "\"\\<>".contains(character))
    {
        return Err(
            "has a line break, control character, quote, backslash or angle bracket in its name",
        );
    }
    if name.chars().count() > 100 {
        return Err("has a name of more than 100 characters");
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

fn parse_address(text: &str) -> Result<String, &'static str> {
    let (local, domain) = text
        .rsplit_once('@')
        .ok_or("must be `Name <local@domain>` or `local@domain`")?;
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte))
    };
    if local.len() > 64 || !local.split('.').all(is_atom) {
        return Err(
            "must have a plain local part: ASCII letters, digits, single dots and -_+ before `@`",
        );
    }
    let domain = idna::domain_to_ascii_strict(domain)
        .map_err(|_errors| "must have a domain name such as example.com after `@`")?;
    let address = format!("{local}@{domain}");
    if address.len() > 254 {
        return Err("has an address of more than 254 characters");
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_has_an_address_and_perhaps_a_name() {
        for (text, name, address) in [
            ("no-reply@example.com", None, "no-reply@example.com"),
            ("<no-reply@example.com>", None, "no-reply@example.com"),
            (
                " otpost <no-reply@Example.COM> ",
                Some("otpost"),
                "no-reply@example.com",
            ),
            (
                "\"Bücher, GmbH\" <a.b+c@bücher.example>",
                Some("Bücher, GmbH"),
                "a.b+c@xn--bcher-kva.example",
            ),
            (
                "Müller & Co. <root@localhost>",
                Some("Müller & Co."),
                "root@localhost",
            ),
        ] {
            let mailbox = Mailbox::parse(text).unwrap();
            assert_eq!(
                (mailbox.name.as_deref(), mailbox.address.as_str()),
                (name, address),
                "{text}"
            );
            assert_eq!(Mailbox::parse(&mailbox.to_string()), Ok(mailbox));
        }
        assert_eq!(
            Mailbox::parse("a <b@example.com>").unwrap().domain(),
            "example.com"
        );
    }

    #[test]
    fn anything_else_is_no_sender() {
        for text in [
            "",
            "otpost",
            "otpost <>",
            "otpost <a@>",
            "<@example.com>",
            "a b@example.com",
            "a@exa mple.com",
            "a@example..com",
            "a@-example.com",
            "a@[127.0.0.1]",
            ".a@example.com",
            "a..b@example.com",
            "ä@example.com",
            "otpost <a@example.com",
            "a@example.com>",
            "x\r\nBcc: y <a@example.com>",
            "\"x <a@example.com>",
            "a <b@example.com>, c <d@example.com>",
            "a@b@example.com",
            "a@example_.com",
        ] {
            assert!(Mailbox::parse(text).is_err(), "{text}");
        }
    }
}
