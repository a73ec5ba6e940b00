//! A sender as it stands in the `From` field: a name and an address.

use std::fmt;

use crate::otp::address::EmailAddress;

/// A name, if any, and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The name to show.
    pub name: Option<String>,
    /// The address.
    pub address: EmailAddress,
}

impl Sender {
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
            address: EmailAddress::parse(address).map_err(|_error| {
                "must be `Name <local@domain>` or `local@domain`, with a domain such as example.com"
            })?,
        })
    }

    /// The domain of the address.
    pub fn domain(&self) -> &str {
        self.address.domain()
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(formatter, "{name} <{}>", self.address.recipient()),
            None => formatter.write_str(&self.address.recipient()),
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
        ] {
            let sender = Sender::parse(text).unwrap();
            assert_eq!(
                (sender.name.as_deref(), sender.address.recipient().as_str()),
                (name, address),
                "{text}"
            );
            assert_eq!(Sender::parse(&sender.to_string()), Ok(sender));
        }
        assert_eq!(
            Sender::parse("a <b@example.com>").unwrap().domain(),
            "example.com"
        );
    }

    #[test]
    fn anything_else_is_no_sender() {
        for text in [
            "",
            "otpost",
            "root@localhost",
            "A <a@example.org> trailing",
            "A \"B\" <a@example.org>",
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
            assert!(Sender::parse(text).is_err(), "{text}");
        }
    }
}
