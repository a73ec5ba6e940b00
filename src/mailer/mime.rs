//! A mail's form on the wire: `multipart/alternative`, plain text first, then HTML.
//!
//! Always ASCII, so that no server needs an extension, unless the recipient goes beyond it; the same
//! mail gives the same bytes.

use std::time::{Duration, UNIX_EPOCH};

use lettre::Address;
use lettre::address::Envelope;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, Mailbox, MultiPart, SinglePart};

use super::Message;
use crate::otp::address::EmailAddress;

/// The longest line that is sent without encoding (RFC 5322 section 2.1.1).
const LINE: usize = 78;

/// The message with CRLF line ends, or `None` if a header cannot be written.
pub fn encode(message: &Message) -> Option<String> {
    let from = wire_address(&message.from.address);
    let to = wire_address(&message.to);
    let envelope = Envelope::new(Some(from.clone()), vec![to.clone()]).ok()?;
    let sender = Mailbox::new(message.from.name.clone(), from);
    let identifier = message.message_id.split('@').next().unwrap_or_default();
    let parts = MultiPart::alternative()
        .boundary(format!("part-{identifier}"))
        .singlepart(part(ContentType::TEXT_PLAIN, &message.text))
        .singlepart(part(ContentType::TEXT_HTML, &message.html));
    let built = lettre::Message::builder()
        .envelope(envelope)
        .from(sender)
        .to(Mailbox::new(None, to))
        .subject(message.subject.as_str())
        .date(UNIX_EPOCH + Duration::from_millis(message.date.0))
        .message_id(Some(format!("<{}>", message.message_id)))
        .raw_header(fixed("Auto-Submitted", "auto-generated"))
        .raw_header(fixed("X-Auto-Response-Suppress", "All"))
        .multipart(parts)
        .ok()?;
    String::from_utf8(built.formatted()).ok()
}

/// Our parser is the stricter one where it matters: what it accepts needs no second opinion.
pub fn wire_address(address: &EmailAddress) -> Address {
    let recipient = address.recipient();
    let local = recipient.rsplit_once('@').map_or("", |(local, _)| local);
    Address::new_dangerous(local, address.domain())
}

fn fixed(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// Text as it is if mail can carry that, else quoted-printable.
fn part(kind: ContentType, text: &str) -> SinglePart {
    let text: String = text
        .trim_end()
        .lines()
        .flat_map(|line| [line, "\n"])
        .collect();
    let is_plain = text.is_ascii()
        && text.lines().all(|line| {
            line.len() <= LINE && !line.bytes().any(|byte| byte < b' ' && byte != b'\t')
        });
    let encoding = if is_plain {
        ContentTransferEncoding::SevenBit
    } else {
        ContentTransferEncoding::QuotedPrintable
    };
    let body = Body::new_with_encoding(text, encoding).unwrap_or_else(Body::new);
    SinglePart::builder().header(kind).body(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lettre_takes_every_address_that_we_take(
            local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}){0,2}",
            domain in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z0-9]{1,10}){0,2}\\.[a-z]{1,10}",
        ) {
            let Ok(address) = EmailAddress::parse(&format!("{local}@{domain}")) else {
                return Ok(());
            };
            prop_assert_eq!(wire_address(&address).to_string(), address.recipient());
            prop_assert!(address.recipient().parse::<Address>().is_ok(), "{}", address.recipient());
        }
    }
}
