//! The From of all mails, as the setting `mail.from` writes it: `Name <local@domain>` or
//! `local@domain`.

use crate::otp::address::{AddressError, EmailAddress};

/// A name, or none, and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    name: Option<String>,
    address: EmailAddress,
}

/// Why a text is no sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The name would not survive in a header as it is.
    #[error("the name must be one line without \", \\, < and >")]
    Name,
    /// The part that should be an address is none.
    #[error("the address {0}")]
    Address(#[from] AddressError),
}

impl Sender {
    /// Reads `Name <local@domain>`, `"Name" <local@domain>` or `local@domain`.
    pub fn parse(text: &str) -> Result<Self, SenderError> {
        let text = text.trim();
        let Some((name, address)) = text
            .strip_suffix('>')
            .and_then(|open| open.rsplit_once('<'))
        else {
            return Ok(Self {
                name: None,
                address: EmailAddress::parse(text)?,
            });
        };
        let name = name.trim();
        let name = name
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(name);
        if name.contains(['"', '\\', '<', '>']) || name.chars().any(char::is_control) {
            return Err(SenderError::Name);
        }
        Ok(Self {
            name: (!name.is_empty()).then(|| name.to_owned()),
            address: EmailAddress::parse(address)?,
        })
    }

    /// The name that readers see.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The address, which is the envelope's sender, too.
    pub fn address(&self) -> &EmailAddress {
        &self.address
    }

    /// The domain of the address, as A-labels.
    pub fn domain(&self) -> &str {
        self.address.domain()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_optional_and_may_be_quoted() {
        for (text, name) in [
            ("codes@example.org", None),
            ("<codes@example.org>", None),
            ("Example Shop <codes@example.org>", Some("Example Shop")),
            ("\"Shop, Ltd.\" <codes@example.org>", Some("Shop, Ltd.")),
            ("  Käse <codes@example.org> ", Some("Käse")),
        ] {
            let sender = Sender::parse(text).unwrap();
            assert_eq!(sender.name(), name, "{text}");
            assert_eq!(sender.address().recipient(), "codes@example.org", "{text}");
        }
    }

    #[test]
    fn the_domain_becomes_a_labels() {
        let sender = Sender::parse("Post <codes@Bücher.example>").unwrap();
        assert_eq!(sender.domain(), "xn--bcher-kva.example");
    }

    #[test]
    fn nothing_but_one_name_and_one_address_is_a_sender() {
        for text in [
            "",
            "codes",
            "a@example.org, b@example.org",
            "A <a@example.org>, B <b@example.org>",
            "A <a@example.org> trailing",
            "A\r\nBcc: b@example.org <a@example.org>",
            "A \"B\" <a@example.org>",
        ] {
            assert!(Sender::parse(text).is_err(), "{text:?}");
        }
    }
}
